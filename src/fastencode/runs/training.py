"""``fastencode-tune train``: the data set, the voxels that are learned, and one run for all participants or one for each."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastencode.data.dataset import Dataset
from fastencode.data.opening import open_data
from fastencode.data.rois import find_rois
from fastencode.errors import DiskError, FailedStages, FastencodeError, InputError, require, warn
from fastencode.progress import say
from fastencode.runs.config import LessonsConfig
from fastencode.runs.executors import settle
from fastencode.runs.provenance import commit, libraries
from fastencode.runs.tuning import only
from fastencode.speech.audio import audio_seconds
from fastencode.speech.layers import SMALL_MODEL, SpeechEncoder
from fastencode.study.brains.ceilings import noise_ceiling, significant_ceilings
from fastencode.threads import available_threads
from fastencode.tune.config import TuneConfig
from fastencode.tune.cost import Cost, cost_of
from fastencode.tune.lessons import Lessons, choose_lessons
from fastencode.tune.processes import Processes
from fastencode.tune.targets import region_weights
from fastencode.tune.trainer import tune_lessons

__all__ = ["prepare_lessons", "say_cost", "train"]


def train(
    choice: LessonsConfig,
    config: TuneConfig,
    model: str,
    out: Path,
    *,
    each: bool = False,
    device: str | None = None,
    extend_epochs: bool = False,
    fast_dev_run: int = 0,
    begun: Callable[[Path], None] | None = None,
) -> list[Path]:
    """Tune a model; returns the folders of the runs.

    Parameters
    ----------
    choice : LessonsConfig
        Whose responses, to which stories, of which voxels.
    config : TuneConfig
    model : str
        Folder or hub name, or small: the model that ships with fastencode.
    out : Path
        The run's folder; with ``each``, a folder of one run for each participant.
    each : bool
        One model for each participant instead of one for all. Finished ones are kept.
    device : str, optional
        By default a CUDA device if there is one, else the CPU.
    extend_epochs : bool
        Whether runs that had fewer epochs go on.
    fast_dev_run : int
        Only so many updates and batches of validation, of one epoch, in a folder that is removed again.
    begun : callable, optional
        Called with the folder of each run that begins or goes on: writes the settings there.

    Raises
    ------
    InputError
        If the data set, a name, the model or a setting does not fit.
    FastencodeError
        If the loss stops being finite.
    FailedStages
        With ``each``, if some of several participants failed; the others were tuned.
    """
    settle()
    torch = require("torch", "tune")
    torch.set_num_threads(available_threads() if "RANK" not in os.environ else max(1, available_threads() // _local_processes()))
    lessons = prepare_lessons(choice)
    _check_clips(lessons, config)
    about = {
        "data set": str(choice.stories),
        "least noise ceiling": choice.ceiling,
        "versions": libraries(),
        "commit": commit(),
    }
    runs = {out / who: only(lessons, who) for who in lessons.people} if each else {out: lessons}
    if fast_dev_run:
        _try_out(runs, config, model, device, fast_dev_run)
        return []
    more: dict[str, Any] = {"extend_epochs": extend_epochs, "about": about, "begun": begun}
    failed: dict[str, FastencodeError] = {}
    for folder, some in runs.items():
        who = folder.name if each else "tuning"
        try:
            tune_lessons(_encoder(model, device), some, config, folder, desc=who, **more)
        except FastencodeError as error:
            if len(runs) == 1 or isinstance(error, DiskError) or "RANK" in os.environ:  # processes stop together
                raise
            failed[who] = error
            say(f"{folder}: failed; the others go on")
            continue
        if os.environ.get("RANK", "0") == "0":
            say(f"{folder}: the model is in {folder / 'model'}, the card in {folder / 'README.md'}")
    _check_failed(failed, len(runs))
    return list(runs)


def _check_failed(failed: Mapping[str, FastencodeError], of: int) -> None:
    """What went wrong with some; where it is one mistake of all, that mistake."""
    if len(failed) == of and len(set(map(str, failed.values()))) == 1:
        raise next(iter(failed.values()))
    if failed:
        said = "\n".join(f"- {who}: {error}" for who, error in failed.items())
        raise FailedStages(f"{len(failed)} of {of} participants failed; the same command goes on with them:\n{said}")


def _local_processes() -> int:
    """Processes on this computer: they share its processors."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("WORLD_SIZE", "1")))


def _encoder(model: str, device: str | None) -> SpeechEncoder:
    """The model, on this process's own card where there are several."""
    torch = require("torch", "tune")
    if device is None and torch.cuda.is_available():
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return SpeechEncoder(SMALL_MODEL if model == "small" else model, device=device)


def _try_out(runs: Mapping[Path, Lessons], config: TuneConfig, model: str, device: str | None, limit: int) -> None:
    """A few updates of the first run, with everything that comes after them; nothing is left."""
    with _passing_folder() as (folder, is_first):
        some = next(iter(runs.values()))
        short = replace(config, epochs=1, keep=(), log_every=1, cnn_cache="off")
        tune_lessons(_encoder(model, device), some, short, folder / "run", limit=limit, desc=f"{limit} updates")
    if is_first:
        say(f"{limit} updates, validation, checkpoint, model, heads, card and curves: all made, and removed again")


@contextmanager
def _passing_folder() -> Iterator[tuple[Path, bool]]:
    """A folder that is removed again, and whether this process does that; the processes of one launcher share it."""
    if "RANK" not in os.environ:
        with tempfile.TemporaryDirectory(prefix="fastencode-") as folder:
            yield Path(folder), True
        return
    processes = Processes.here()
    shared = Path(tempfile.gettempdir()) / f"fastencode-{os.getppid()}"
    shared.mkdir(exist_ok=True)
    yield shared, processes.is_first
    processes.wait()
    if processes.is_first:
        shutil.rmtree(shared, ignore_errors=True)


def prepare_lessons(choice: LessonsConfig, data: Dataset | None = None) -> Lessons:
    """The data set (by default that in ``choice.stories``), who heard what, and the voxels that are learned."""
    if data is None:
        named: dict[str, Any] = {"tr": choice.tr, "test_story": choice.test_story, "settings": choice.images}
        data = open_data(choice.stories, choice.layout, word_tier=choice.word_tier, phone_tier=choice.phone_tier, **named)
    watched = choice.validation or marked(data, "validation")
    named = {"participants": choice.participants, "validation": watched, "exclude": choice.exclude}
    lessons = choose_lessons(data, **named)
    if not any(data.test_story in data.stories(who) for who in lessons.people):
        warn(
            f"nobody heard the test story {data.test_story!r}, so {', '.join(lessons.runs(lessons.train))} are learned from:"
            " if one of them is for testing, name it with --test-story"
        )
    voxels, weights = {}, {}
    for who in lessons.people:
        regions = _regions(data, who, choice)
        voxels[who] = _voxels(data, who, regions, choice)
        if choice.prefer:
            weights[who] = region_weights(data.n_voxels(who), voxels[who], regions, choice.prefer, choice.prefer_weight)
    return choose_lessons(data, voxels=voxels, weights=weights, **named)


def marked(data: Dataset, split: str) -> tuple[str, ...]:
    """The runs that a data set marks as of a split."""
    runs = dict.fromkeys(run for who in data.participants for run in data.stories(who))
    return tuple(run for run in runs if data.split(run) == split)


def _check_clips(lessons: Lessons, config: TuneConfig) -> None:
    if config.clip_seconds < lessons.data.tr:
        tr = f"{lessons.data.tr:g} s"
        raise InputError(f"clip_seconds={config.clip_seconds:g}: a clip must hold its TR, {tr}: give as much or more")


def _regions(data: Dataset, who: str, choice: LessonsConfig) -> Mapping[str, NDArray[np.intp]]:
    """The regions of a participant, if any are needed; raises an :class:`InputError` if one that is named is not there."""
    if not (choice.regions or choice.prefer):
        return {}
    regions = data.rois(who) if choice.rois is None else find_rois([choice.rois], who, None, n_voxels=data.n_voxels(who))
    for name in (*choice.regions, *choice.prefer):
        if name not in regions:
            known = ", ".join(sorted(regions)) or "none"
            raise InputError(f"{who} has no region {name!r}; there are: {known}")
    return regions


def _voxels(data: Dataset, who: str, regions: Mapping[str, NDArray[np.intp]], choice: LessonsConfig) -> NDArray[np.intp]:
    """Indices of the voxels in ``choice.regions`` whose noise ceiling is above ``choice.ceiling`` and significant, ascending."""
    chosen = np.ones(data.n_voxels(who), bool)
    if choice.regions:
        chosen[:] = False
        chosen[np.concatenate([regions[name] for name in choice.regions])] = True
    if choice.ceiling >= 0:
        if not data.test_story or not data.is_repeated(who, data.test_story):
            raise InputError(
                f"{who} has no repeats of {data.test_story or 'a test story'}, so no noise ceiling: give ceiling -1 to learn all"
                " voxels, or regions"
            )
        places = np.flatnonzero(chosen)
        repeats = data.repeats(who, data.test_story, voxels=places)
        good = np.isfinite(repeats).all(axis=(0, 1))
        passed = np.zeros(len(places), bool)
        of_good = repeats[:, :, good]
        passed[good] = (noise_ceiling(of_good) > choice.ceiling) & significant_ceilings(of_good)
        chosen[:] = False
        chosen[places[passed]] = True
    if not chosen.any():
        raise InputError(f"no voxel of {who} has a noise ceiling above {choice.ceiling:g}: lower it, or leave {who} out")
    return np.flatnonzero(chosen)


def say_cost(
    choice: LessonsConfig, config: TuneConfig, model: str, out: Path, *, each: bool, device: str | None
) -> Sequence[Cost]:
    """Check data, shapes and model, and say what a run would take in hours, memory and disk; nothing is written.

    Parameters are those of :func:`train`. Returns one cost for each run; raises as :func:`train` does.
    """
    settle()
    require("torch", "tune").set_num_threads(available_threads())
    lessons = prepare_lessons(choice)
    _check_clips(lessons, config)
    lessons.check_sounds()
    lessons.check_responses()
    costs = []
    for who, some in {who: only(lessons, who) for who in lessons.people}.items() if each else [("", lessons)]:
        cost = cost_of(_encoder(model, device), some, config)
        costs.append(cost)
        people = ", ".join(f"{one} {len(voxels)} voxels" for one, voxels in some.voxels.items())
        say(
            f"{f'{who}: ' if who else ''}{people}; {cost.clips} clips of {config.clip_seconds:g} s an epoch,"
            f" {cost.updates} updates in all"
        )
    above = next(path for path in (out, *out.absolute().parents) if path.exists())
    sounds = sum(audio_seconds(path) for path in lessons.sounds().values()) / 3600
    seconds, memory, disk = sum(one.seconds for one in costs), max(one.memory for one in costs), sum(one.disk for one in costs)
    say(
        f"{sounds:.2g} hours of sound; about {seconds / 3600:.2g} hours on {costs[0].device}, by two batches now;"
        f" {memory / 1e9:.2g} GB of memory beside the libraries, {disk / 1e9:.2g} GB on disk while it runs,"
        f" {shutil.disk_usage(above).free / 1e9:.3g} GB free"
    )
    say("dry run: nothing was written")
    return costs
