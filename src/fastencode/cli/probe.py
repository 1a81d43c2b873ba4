"""``fastencode-tune probe``: fit and score linear probes of every layer.

Corpus, features, tasks and splits are checked before the first fit, and all problems are reported together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from fastencode.cli.mistakes import of_option
from fastencode.cli.output import provenance
from fastencode.cli.probe_settings import ProbeRunConfig
from fastencode.cli.written import write_settings
from fastencode.data.corpora import Corpus, open_corpus
from fastencode.devices import find_device, parse_device
from fastencode.errors import InputError, Problems, raise_all, require, warn
from fastencode.files import folder_name, whole_file
from fastencode.progress import say
from fastencode.runs.engine import Stage, Stages
from fastencode.runs.probing import Probed, check_folders, collect_probes, probe_stage, targets_stage
from fastencode.speech.packed import CORPUS_FILE, Packed, open_packed
from fastencode.study.findings.probe_tables import best_rows, probe_rows, target_rows
from fastencode.study.probing.leakage import check_leaks, find_leaks, texts_of
from fastencode.study.probing.tasks import Task, check_name, task_of
from fastencode.study.report.report import write_provenance

__all__ = ["run"]

_SHOWN = 3


@dataclass(frozen=True)
class _Model:
    """The features of a corpus, read by one model."""

    name: str
    packed: Packed
    path: Path

    @property
    def frames(self) -> bool:
        """Whether recordings have several rows, one per time bin."""
        return bool(self.packed.key.get("pool") == "bins" or (self.packed.counts != 1).any())


def run(config: ProbeRunConfig) -> Path:
    """Fit the probes that are not finished, write the tables, and return the output folder."""
    stages = Stages(config.out, reuse=config.reuse)
    _check_device(config.device)
    corpus, models, tasks, leaks = _checked(config, cache(stages.sha256))
    fits = _fits(stages, config, models, tasks)
    if config.dry_run:
        _say_plan(stages, fits, tasks)
        return stages.root
    stages.run_all(fits, jobs=config.jobs)
    own = [stage for stage in fits if stage.name.startswith("probes/") and stage.name not in stages.failed]
    if not own:
        stages.check()
    _write(stages, config, corpus, models, tasks, own, leaks)
    stages.check()
    return stages.root


def _check_device(device: str | None) -> None:
    parsed = parse_device(device)
    if parsed not in (None, "cpu"):
        find_device(str(parsed))


def _checked(config: ProbeRunConfig, sha256: Callable[[Path], str]) -> tuple[Corpus, list[_Model], dict[str, Task], list[str]]:
    """Open and check everything. Returns the corpus, the features, name → task, and a line for each leak that was allowed."""
    mistakes, models, tasks, opened = Problems(), list[_Model](), dict[str, Task](), list[Corpus]()
    with mistakes.gathered(), of_option("--corpus"):
        which = "core" if config.split == "core" else "official"
        opened.append(open_corpus(config.corpus, config.kind, words=config.words or None, split=which))
    for folder in config.features:
        with mistakes.gathered(), of_option("--features"):
            models.append(_model(folder))
    names = []
    if config.split == "published" and not set(config.tasks) & {"phonemes", "phones"}:
        mistakes.found.append(
            "--split: the published split exists for phonemes and phones only: add one of these tasks, or leave it out"
        )
    for name in config.tasks:
        with mistakes.gathered(), of_option("--tasks"):
            check_name(name, _split_of(name, config))
            names.append(name)
    if not opened:
        raise_all(mistakes.found)
    corpus, texts = opened[0], dict[str, str]()
    with mistakes.gathered():
        texts = texts_of(corpus, config.text)
    if len(models) == len(config.features):
        with mistakes.gathered():
            _check_use(models, names, config)
    keys = _common(corpus, models, mistakes)
    for name in names:
        with mistakes.gathered():
            tasks[name] = task_of(
                name,
                corpus,
                keys=keys,
                split=_split_of(name, config),
                points=config.mfcc_points,
                allow=config.allow,
                texts=texts if config.control else None,
                seed=config.seed,
            )
    with mistakes.gathered():
        check_folders([*tasks, *(model.name for model in models)])
    allowed = list[str]()
    with mistakes.gathered():
        allowed = _leaks(tasks, texts, config, sha256)
    with mistakes.gathered():
        _check_sounds(corpus, models, keys, sha256)
    raise_all(mistakes.found)
    return corpus, models, tasks, allowed


def _split_of(name: str, config: ProbeRunConfig) -> str:
    """The split of a task: "published" exists for phonemes and phones only; other tasks use the official split."""
    return "published" if config.split == "published" and name in ("phonemes", "phones") else "official"


def _model(folder: Path) -> _Model:
    path = folder / CORPUS_FILE
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: give one that fastencode-tune features --read.input utterance filled")
    if not path.exists() and not path.with_name(f"{path.name}.partial").exists():
        raise InputError(f"{folder} has no {CORPUS_FILE}: fill it with fastencode-tune features --read.input utterance")
    return _Model(folder.absolute().name, open_packed(path), path)


def _check_use(models: Sequence[_Model], tasks: Sequence[str], config: ProbeRunConfig) -> None:
    """Check that each task has features of its kind (frames or recordings), and that all features are used."""
    kinds = {name == "phones" for name in tasks}
    for frames in sorted(kinds - {model.frames for model in models}):
        asking = ", ".join(name for name in tasks if (name == "phones") == frames)
        rows, pool = ("a row for each bin of sound", "bins") if frames else ("one row for each recording", "mean")
        raise InputError(f"--features: no folder has {rows}, as {asking} asks for: add one read with --read.pool {pool}")
    if unused := [str(model.path.parent) for model in models if tasks and model.frames not in kinds]:
        what = "a row for each bin of sound, which only" if False in kinds else "one row for each recording, which all tasks but"
        raise InputError(f"--features: {unused[0]} has {what} phones asks for: leave it out, or give other tasks")


def _common(corpus: Corpus, models: Sequence[_Model], mistakes: Problems) -> set[str]:
    """Recordings for which all models have features, so that all models are scored on the same recordings."""
    keys = set(corpus.recordings)
    for model in models:
        there = keys & set(model.packed.names)
        if not there:
            first = next(iter(model.packed.names), "nothing")
            mistakes.found.append(
                f"--features: {model.path} is of another corpus: it has {first!r} …, {corpus.root} has"
                f" {next(iter(corpus.recordings))!r} …; make the features of this corpus"
            )
            continue
        if absent := sorted(keys - there):
            warn(
                f"{model.path} has no features of {len(absent)} of {len(keys)} recordings, the first {absent[0]!r}: all models"
                " are probed without them"
            )
        keys = there
    return keys


def _leaks(
    tasks: Mapping[str, Task], texts: Mapping[str, str], config: ProbeRunConfig, sha256: Callable[[Path], str]
) -> list[str]:
    """A line for each leak that is allowed, with a warning. Raises an error if there are others."""
    found = {name: find_leaks(task, texts, sha256) for name, task in tasks.items()}
    own = {name: [leak for leak in leaks if leak.kind in tasks[name].allowed] for name, leaks in found.items()}
    rest = {name: [leak for leak in leaks if leak.kind not in tasks[name].allowed] for name, leaks in found.items()}
    allowed = [f"{name}: {leak}" for name, leaks in own.items() for leak in leaks]
    allowed += check_leaks(rest, config.allow)
    for line in allowed:
        warn(f"allowed: {line}")
    return allowed


def _check_sounds(corpus: Corpus, models: Sequence[_Model], keys: set[str], sha256: Callable[[Path], str]) -> None:
    """Check that features were read from the sound files as they are now."""
    for model in models:
        of = dict(zip(model.packed.names, model.packed.audio, strict=True))
        others = [key for key in sorted(keys) if key in of and sha256(corpus.recordings[key].path) != of[key]]
        if others:
            raise InputError(
                f"--features: {model.path} was made of other sounds than {len(others)} of those in {corpus.root}, the first"
                f" {others[0]!r}: make the features again"
            )


def _fits(stages: Stages, config: ProbeRunConfig, models: Sequence[_Model], tasks: Mapping[str, Task]) -> list[Stage]:
    """The stages: labels that are computed from sounds, then each task on each model with features of its kind."""
    found = []
    for name, task in tasks.items():
        targets = None
        if task.points:
            targets = f"targets/{folder_name(name)}"
            found.append(targets_stage(targets, task, stages.sha256))
        for model in models:
            if model.frames == task.frames:
                stage = f"probes/{folder_name(name)}/{folder_name(model.name)}"
                arguments = (stage, task, model.name, model.path.absolute(), config.probing())
                found.append(probe_stage(*arguments, root=stages.root, targets=targets, device=config.device))
    return found


def _say_plan(stages: Stages, fits: Sequence[Stage], tasks: Mapping[str, Task]) -> None:
    missing = set(stages.missing(fits))
    for stage in fits:
        say(f"{stage.name}: {'to be made' if stage.name in missing else 'finished'}")
    for name, task in tasks.items():
        counts = ", ".join(f"{part} {task.split.count(part)}" for part in ("train", "validation", "test"))
        what = f"{len(task.classes)} {'targets' if task.kind == 'regression' else 'classes'}"
        say(f"{name}: {task.kind}, {what}; recordings {counts}; {len(set(task.groups or ()))} speakers")


def _write(
    stages: Stages,
    config: ProbeRunConfig,
    corpus: Corpus,
    models: Sequence[_Model],
    tasks: Mapping[str, Task],
    own: Sequence[Stage],
    leaks: Sequence[str],
) -> None:
    """Write the tables of all finished probes, the settings and the provenance. Locked, because several commands may run."""
    pandas = require("pandas", "tune")
    names = [model.name for model in models]

    def order(task: str, model: str) -> tuple[Any, ...]:
        place = (list(tasks).index(task) if task in tasks else len(tasks), task)
        return (*place, names.index(model) if model in names else len(names), model)

    with stages.alone("tables"):
        found = collect_probes(stages, config.probing(), own, order)
        rows = probe_rows(found.results)
        tables = {"probes": rows, "probe_targets": target_rows(found.results)}
        for name, table in tables.items():
            if table:
                with whole_file(stages.root / f"{name}.csv") as partial:
                    pandas.DataFrame(table).to_csv(partial, index=False, lineterminator="\n")
        command = write_settings(stages.root, replace(config, reuse=False), "fastencode-tune probe")
        write_provenance(
            stages.root,
            command,
            {
                **provenance(config, stages.seconds),
                "corpus": {"name": corpus.name, "kind": corpus.kind, "recordings": len(corpus.recordings)},
                "models": {model.name: model.packed.key for model in models},
                "notes": {name: list(task.notes) for name, task in tasks.items() if task.notes},
                "leaks that were allowed": list(leaks),
            },
        )
    if found.left_out:
        say(f"not in the tables, because settings, labels or features differ: {', '.join(found.left_out)}")
    _say_best(rows, found)
    written = ", ".join(f"{name}.csv" for name, table in tables.items() if table)
    say(f"\n{written}, provenance.json and config.yaml are in {stages.root}")


def _say_best(rows: Sequence[Mapping[str, Any]], found: Probed) -> None:
    pandas = require("pandas", "tune")
    best = pandas.DataFrame(best_rows(rows))
    ends = zip(best["low"], best["high"], strict=True)
    best[".95 interval"] = ["" if low != low else f"{low:.3f} to {high:.3f}" for low, high in ends]  # NaN: too few speakers
    columns = ["task", "model", "metric", "layer", "score", ".95 interval", "baseline"]
    if best["participant"].any():
        columns.insert(2, "participant")
    if best["control"].notna().any():
        columns.append("control")
    say("\nbest layer of each model and task (selected by the scores shown, so slightly too high); all layers are in probes.csv")
    say(best[[*columns, "n_test", "n_units", "unit"]].to_string(index=False, float_format="%.3f", na_rep=""))
    for task, model in sorted({(row["task"], row["model"]) for row in rows if row["at_edge"]}):
        warn(f"{task}, {model}: the penalty of some layers is at an end of the grid: widen it with --penalties")
