"""The files of a BIDS data set: preprocessed images by participant and run, and what JSON files say of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastencode.errors import InputError, require
from fastencode.files import read_json

__all__ = ["FMRIPREP", "Bold", "find_bold", "roots_of", "sidecar", "stimuli_of", "tr_of"]

FMRIPREP = {
    "_desc-preproc_bold.nii.gz": "volume",
    "_desc-preproc_bold.nii": "volume",
    "_bold.func.gii": "surface",
    "_bold.dtseries.nii": "cifti",
}
"""How the names of fMRIPrep's images end, and what they are."""

_ENTITY = re.compile(r"([a-zA-Z]+)-([a-zA-Z0-9+]+)")


@dataclass(frozen=True)
class Bold:
    """The files of one run of one participant in one space."""

    entities: Mapping[str, str]
    kind: str
    files: tuple[Path, ...]

    @property
    def participant(self) -> str:
        return f"sub-{self.entities['sub']}"

    @property
    def where(self) -> str:
        return ", ".join(
            [self.participant, *(f"{name}-{self.entities[name]}" for name in ("ses", "task", "run") if name in self.entities)]
        )

    @property
    def raw(self) -> str:
        """What the raw files of this run begin with."""
        return "_".join(f"{name}-{self.entities[name]}" for name in ("sub", "ses", "task", "acq", "run") if name in self.entities)

    @property
    def pipeline(self) -> str:
        """The folder of ``derivatives`` that they lie in; empty where they lie in no such folder, or in that itself."""
        parts = self.files[0].resolve().parts
        cut = len(parts) - 1 - parts[::-1].index("derivatives") if "derivatives" in parts else -1
        return "" if cut < 0 or parts[cut + 1].startswith("sub-") else parts[cut + 1]

    @property
    def space(self) -> str:
        """The space of the images; "native" where their names have none."""
        return self.entities.get("space", "native")

    @property
    def task(self) -> str:
        return self.entities.get("task", "")


def find_bold(root: Path, endings: Mapping[str, str] = FMRIPREP, pipeline: str = "") -> list[Bold]:
    """All preprocessed runs below a folder, hemispheres together.

    Parameters
    ----------
    root : Path
        Of the data set, or of the derivatives.
    endings : mapping of str to {"volume", "surface", "cifti"}
        How the names of images end.
    pipeline : str
        Only of this folder of ``derivatives``.

    Raises
    ------
    InputError
        If there is no folder, or no image in it.
    """
    if not root.is_dir():
        raise InputError(f"{root} is not a folder: give the root of a BIDS data set, or its derivatives")
    sides: dict[tuple[tuple[str, str], ...], list[Path]] = {}
    for path in sorted(root.rglob("sub-*")):
        kind = next((kind for ending, kind in endings.items() if path.name.endswith(ending)), None)
        if kind is None or path.parent.name != "func" or (pipeline and pipeline not in path.relative_to(root).parts):
            continue
        entities = dict(_ENTITY.findall(path.name))
        key = tuple((name, value) for name, value in entities.items() if name not in ("hemi", "desc"))
        sides.setdefault((*key, ("kind", kind)), []).append(path)
    if not sides:
        some = ", ".join(f"*{ending}" for ending in endings)
        raise InputError(f"{root} holds no sub-*/func/{some}: give a data set with preprocessed images")
    return [Bold(dict(key), dict(key)["kind"], tuple(sorted(files))) for key, files in sides.items()]


def stimuli_of(root: Path) -> Path:
    """The folder of stimuli of a data set, or of the one that derivatives belong to."""
    return next((folder / "stimuli" for folder in roots_of(root) if (folder / "stimuli").is_dir()), root / "stimuli")


def roots_of(root: Path) -> list[Path]:
    """The folder that is given, and those above it while it is a derivative."""
    around = [root, *root.resolve().parents]
    cut = next((place for place, folder in enumerate(around) if folder.name == "derivatives"), None)
    return around[: cut + 2] if cut is not None else [root]


def sidecar(root: Path, bold: Bold) -> dict[str, Any]:
    """What JSON files say of a run, those that stand nearest to it last."""
    found: dict[str, Any] = {}
    entities = bold.entities
    parts = [f"sub-{entities['sub']}", *([f"ses-{entities['ses']}"] if "ses" in entities else []), "func"]
    for top in reversed(roots_of(root)):
        for depth in range(len(parts) + 1):
            folder = top.joinpath(*parts[:depth])
            task = f"task-{entities.get('task', '')}_bold.json"
            for name in (task, f"sub-{entities['sub']}_{task}", f"{bold.raw}_bold.json"):
                if (folder / name).is_file():
                    found |= read_json(folder / name)
    stem = re.sub(r"(\.nii(\.gz)?|\.func\.gii|\.dtseries\.nii)$", ".json", bold.files[0].name)
    for name in (stem.replace("_hemi-L", ""), stem):
        beside = bold.files[0].with_name(name)
        if beside.is_file():
            found |= read_json(beside)
    return found


def tr_of(path: Path) -> float:
    """The TR of an image's own header, 0 if it has none."""
    nibabel = require("nibabel", "neuro")
    image = nibabel.load(path)
    if path.name.endswith(".dtseries.nii"):
        return float(image.header.get_axis(0).step)
    zooms: tuple[float, ...] = tuple(image.header.get_zooms()) if hasattr(image.header, "get_zooms") else ()
    return float(zooms[3]) if len(zooms) > 3 else 0.0
