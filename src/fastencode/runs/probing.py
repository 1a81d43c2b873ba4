"""Probes as stages: labels that are made of sound, and one probe of all layers for each task and model.

    sounds ─► targets/<task> ─┐
    corpus.h5 of a model ─────┴► probes/<task>/<model>

A probe counts its features by their contents and the task by what is asked of which recordings. It can be made before there are
any features, as in a study, where another stage makes them.
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
_FOLDER = "probes"

Key = tuple[str, str, str, str]
"""Task, model, participant, seed of the model; the last two are empty where a model has none."""


def targets_stage(name: str, task: Task, sha256: Callable[[Path], str]) -> Stage:
    """The labels of a task that are made of the sounds themselves: the trajectories of ``mfcc``.

    Parameters
    ----------
    name : str
        Its folder.
    task : Task
    sha256 : callable
        The digest of a file's contents. The sounds count by it, all as one.
    """
    sounds = digest([[key, sha256(path)] for key, path in zip(task.keys, task.paths, strict=True)])
    return Stage(name, {"points": task.points, "sounds": sounds}, (), write_targets, (task,))


def write_targets(folder: Path, task: Task) -> None:
    """The stage of labels made of sounds."""
    sounds = dict(zip(task.keys, task.paths, strict=True))
    shown = partial(progress, desc="cepstra", unit="sound", total=len(sounds))
    np.save(folder / TARGETS, trajectories(sounds, task.points, progress=shown))


def probe_stage(
    task: Task,
    model: str,
    packed: Path,
    config: ProbeConfig,
    *,
    root: Path,
    reads: tuple[str, ...] = (),
    targets: str | None = None,
    participant: str = "",
    seed: str = "",
    device: str | None = None,
) -> Stage:
    """One task on all layers of one model: ``probes/<task>/<model>[/<participant>][/<seed>]``.

    Parameters
    ----------
    task : Task
    model : str
        What tables call the model.
    packed : Path
        Its features of the corpus.
    config : ProbeConfig
    root : Path
        The output folder, where ``targets`` lie.
    reads : tuple of str
        Stages that make ``packed``. Where there are none, the file counts by its contents.
    targets : str, optional
        The stage of :func:`targets_stage`, for a task whose labels are made of sounds.
    participant, seed : str
        Whose model it is, and which of several.
    device : str, optional
        Where probes are fitted; results do not depend on it but for rounding.
    """
    name = "/".join(part for part in (_FOLDER, _folder(task.name), _folder(model), participant, seed) if part)
    settings = {
        "task": task.name,
        "model": model,
        "participant": participant,
        "seed": seed,
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
    """The settings that must be alike for two probes to stand in one table; split and leaks show in the task itself."""
    return {name: getattr(config, name) for name in ("control", "penalties", "bootstraps", "seed")}


@dataclass(frozen=True)
class Chosen:
    """Some rows of the features of a corpus, as a probe reads them: layer by layer."""

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
    """The stage of one task on all layers of one model."""
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
    """Finished probes, in the order of the tables.

    Attributes
    ----------
    results : (task, model, participant, seed) → ProbeResult
    left_out : tuple of str
        Probes in the output folder whose settings are others.
    """

    results: Mapping[Key, ProbeResult]
    left_out: tuple[str, ...]


def collect_probes(stages: Stages, config: ProbeConfig, own: Sequence[Stage], order: Callable[[str, str], Any]) -> Probed:
    """All finished probes of the output folder that may stand in one table, of this command and of earlier ones.

    Parameters
    ----------
    stages : Stages
    config : ProbeConfig
    own : sequence of Stage
        The probes of this command. Of their models and tasks, only what is of the same features and labels is taken.
    order : callable
        Sorts (task, model).

    Raises
    ------
    InputError
        If there is none, or one is damaged.
    """
    found = {**stages.finished(f"{_FOLDER}/*/*"), **stages.finished(f"{_FOLDER}/*/*/*"), **stages.finished(f"{_FOLDER}/*/*/*/*")}
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
        raise InputError(f"{stages.root} holds no finished probe of these settings")
    names = sorted(kept, key=lambda name: (order(kept[name].settings["task"], kept[name].settings["model"]), name))
    results = {_key(kept[name]): load_probe(stages.path(name) / RECORD) for name in names}
    return Probed(results, tuple(sorted(found.keys() - kept.keys())))


def _key(one: Signature) -> Key:
    task, model, participant, seed = (str(one.settings[name]) for name in ("task", "model", "participant", "seed"))
    return task, model, participant, seed


def _folder(name: str) -> str:
    """A name as a folder has it: no slashes, colons or spaces."""
    return "".join("-" if letter in '/\\: *?"<>|' else letter for letter in name)


def check_folders(names: Collection[str]) -> None:
    """An ``InputError`` if two names of tasks or models cannot be told apart as folders."""
    before: dict[str, str] = {}
    for name in names:
        other = before.setdefault(_folder(name), name)
        if other != name:
            raise InputError(f"{other!r} and {name!r} cannot be told apart as folders: rename one")
