"""Probes as stages: labels that are computed from sounds, and one probe of all layers for each task and model.

    sounds ─► targets/<task> ─┐
    corpus.h5 of a model ─────┴► probes/<task>/<model>

The key of a probe stage contains the digest of its features, or the stage that makes them, and the labels of the task. So the
stage can be defined before the features exist.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastencode.errors import InputError
from fastencode.files import folder_name
from fastencode.plain import plain
from fastencode.progress import progress
from fastencode.runs.config import ProbeConfig
from fastencode.runs.engine import Stage, Stages
from fastencode.runs.making import Signature
from fastencode.runs.provenance import digest
from fastencode.speech.packed import Packed, open_packed
from fastencode.study.probes import ProbeResult, load_probe, probe, save_probe
from fastencode.study.probing.labels import trajectories
from fastencode.study.probing.tasks import Task

__all__ = ["RECORD", "Chosen", "Probed", "check_folders", "collect_probes", "probe_stage", "targets_stage"]

RECORD, TARGETS = "probe.h5", "targets.npy"

Key = tuple[str, str, str, str]
"""(task, model, participant, seed) of a probe; participant and seed are "" for models that have none."""


def targets_stage(name: str, task: Task, sha256: Callable[[Path], str]) -> Stage:
    """The labels of the task ``mfcc``, which are computed from the sounds.

    Parameters
    ----------
    name : str
        Name of the stage.
    task : Task
    sha256 : callable
        Returns the digest of a file's contents.
    """
    sounds = digest([[key, sha256(path)] for key, path in zip(task.keys, task.paths, strict=True)])
    return Stage(name, {"points": task.points, "sounds": sounds}, (), write_targets, (task,))


def write_targets(folder: Path, task: Task) -> None:
    """Compute and save the trajectories, ``targets.npy``."""
    sounds = dict(zip(task.keys, task.paths, strict=True))
    shown = partial(progress, desc="cepstra", unit="sound", total=len(sounds))
    np.save(folder / TARGETS, trajectories(sounds, task.points, progress=shown))


def probe_stage(
    name: str,
    task: Task,
    model: str,
    packed: Path,
    config: ProbeConfig,
    *,
    root: Path,
    reads: tuple[str, ...] = (),
    targets: str | None = None,
    participant: str = "",
    device: str | None = None,
) -> Stage:
    """Probe all layers of one model on one task.

    Parameters
    ----------
    name : str
        The stage's folder below ``root``, such as "probes/word/tuned".
    task : Task
    model : str
        What tables call the model.
    packed : Path
        File of the model's features of the corpus (:mod:`fastencode.speech.packed`).
    config : ProbeConfig
    root : Path
        The output folder, which holds ``targets``.
    reads : tuple of str
        Stages that make ``packed``. Without any, the digest of the file's contents is part of the stage's key.
    targets : str, optional
        The stage of :func:`targets_stage`, for a task whose labels are computed from the sounds.
    participant : str
        The participant on whom the model was tuned; "" for none.
    device : str, optional
        Device of ridge regressions. Results on different devices agree to rounding.
    """
    settings = {
        "task": task.name,
        "model": model,
        "participant": participant,
        "truth": digest(task.truth()),
        "shared": decisive(config),
    }
    return Stage(
        name,
        settings,
        (*reads, *(() if targets is None else (targets,))),
        probe_layers,
        (task, packed, None if targets is None else root / targets, config, device),
        inputs={} if reads else {"features": packed},
    )


def decisive(config: ProbeConfig) -> dict[str, Any]:
    """The settings that must agree for two probes to be in one table. Splits and leaks are part of the task."""
    return {name: getattr(config, name) for name in ("control", "penalties", "bootstraps", "seed")}


@dataclass(frozen=True)
class Chosen:
    """Chosen rows of the features of a corpus, read layer by layer."""

    packed: Packed
    chosen: NDArray[np.intp]

    @property
    def n_layers(self) -> int:
        return self.packed.n_layers

    @property
    def width(self) -> int:
        return self.packed.width

    def rows(self, layer: int) -> NDArray[np.float32]:
        """The features of one layer, (r, width)."""
        return self.packed.rows(layer)[self.chosen]


def probe_layers(folder: Path, task: Task, packed: Path, targets: Path | None, config: ProbeConfig, device: str | None) -> None:
    """Probe all layers of one model on one task, and save the result, ``probe.h5``."""
    labels = None if targets is None else np.load(targets / TARGETS)
    with open_packed(packed) as features:
        found = task.rows(features.names, features.counts, features.times, labels)
        result = probe(
            Chosen(features, found.rows),
            found.labels,
            found.groups,
            split=found.split,
            task=task.kind,
            penalties=config.penalties or None,
            control=config.seed if config.control else None,
            types=found.types if config.control else None,
            items=found.items,
            bootstraps=0 if task.alone else config.bootstraps,
            seed=config.seed,
            names=None if task.kind == "classification" else task.classes,
            progress=True,
            unit=task.unit or None,
            device=device,
        )
    save_probe(result, folder / RECORD)


@dataclass(frozen=True)
class Probed:
    """Finished probes, in the order of table rows.

    Attributes
    ----------
    results : (task, model, participant, seed) → ProbeResult
    left_out : tuple of str
        Names of finished probes that have other settings, labels or features.
    """

    results: Mapping[Key, ProbeResult]
    left_out: tuple[str, ...]


def collect_probes(stages: Stages, config: ProbeConfig, own: Sequence[Stage], order: Callable[[str, str], Any]) -> Probed:
    """Finished probes of this and earlier commands in an output folder that can be in one table.

    Parameters
    ----------
    stages : Stages
    config : ProbeConfig
    own : sequence of Stage
        The probes of this command. Earlier probes of the same models and tasks must have the same features and labels.
    order : callable
        Sorts (task, model).

    Raises
    ------
    InputError
        If there are none, or one is damaged.
    """
    found = stages.finished("probes/*/*")
    ours = [found[stage.name] for stage in own if stage.name in found]
    inputs = {one.settings["model"]: one.inputs for one in ours}
    truths = {one.settings["task"]: one.settings["truth"] for one in ours}
    wanted = plain(decisive(config))
    kept = {
        name: one
        for name, one in found.items()
        if one.settings["shared"] == wanted
        and inputs.get(one.settings["model"], one.inputs) == one.inputs
        and truths.get(one.settings["task"], one.settings["truth"]) == one.settings["truth"]
    }
    if not kept:
        raise InputError(f"{stages.root} has no finished probe with these settings")
    names = sorted(kept, key=lambda name: (order(kept[name].settings["task"], kept[name].settings["model"]), name))
    results = {_key(kept[name]): load_probe(stages.path(name) / RECORD) for name in names}
    return Probed(results, tuple(sorted(found.keys() - kept.keys())))


def _key(one: Signature) -> Key:
    task, model, participant = (str(one.settings[name]) for name in ("task", "model", "participant"))
    return task, model, participant, ""


def check_folders(names: Collection[str]) -> None:
    """Raise :class:`InputError` if two names of tasks or models lead to the same folder name."""
    before: dict[str, str] = {}
    for name in names:
        other = before.setdefault(folder_name(name), name)
        if other != name:
            raise InputError(f"{other!r} and {name!r} have the same folder name: rename one")
