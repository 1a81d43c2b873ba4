"""What a study's models cannot learn from its data: found before frames of hours of sound are made for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

from fastencode.data.dataset import Dataset
from fastencode.errors import InputError, Problems
from fastencode.runs.studies.config import Arm, StudyConfig
from fastencode.runs.tuning import shortened
from fastencode.speech.audio import audio_seconds
from fastencode.study.brains.low_level import LOW_LEVEL, OF_WORDS
from fastencode.tune.config import TuneConfig
from fastencode.tune.lessons import Lessons, choose_lessons
from fastencode.tune.targets import source_rows
from fastencode.world.outline import Outline

__all__ = ["check_learning"]


def check_learning(config: StudyConfig, data: Dataset) -> list[str]:
    """Problems of a resolved study whose names are right: runs that teach nothing, or lack what an arm or a baseline needs.

    Parameters
    ----------
    config : StudyConfig
    data : Dataset
        May be the outline of a world that is not made yet.
    """
    asked, problems = config.data, Problems()
    with problems.gathered("data"):
        lessons = choose_lessons(data, participants=asked.participants, validation=asked.validation or (), exclude=asked.exclude)
        for place, arm in enumerate(config.arms, 1):
            if arm.is_tuned:
                with suppress(InputError):  # said of the arm
                    run = config.tuning(arm, arm.seeds[0])
                    problems.found += _of_arm(f"arms[{place}].tune", run, arm, lessons)
        problems.found += _of_baselines(config, lessons)
    return problems.found


def _of_arm(where: str, run: TuneConfig, arm: Arm, lessons: Lessons) -> list[str]:
    problems, data = Problems(), lessons.data
    for some in [shortened(lessons, hours) for hours in arm.hours or (None,)]:
        for who, runs in some.train.items():
            with problems.gathered(f"{where}, {who}"):
                source_rows({one: data.n_rows(one) for one in runs}, run, who, data.tr)
    if isinstance(data, Outline):
        return problems.found
    with problems.gathered(where):
        longest = max(audio_seconds(path) for path in lessons.sounds().values())
        if run.clip_seconds > longest:
            raise InputError(f"clip_seconds={run.clip_seconds:g}, but the longest sound lasts {longest:.0f} s: give fewer")
    if run.word_weight:
        problems.found += _without_words(where, "words", lessons.runs(lessons.train), data)
    return problems.found


def _of_baselines(config: StudyConfig, lessons: Lessons) -> Iterator[str]:
    """Transcripts that low-level features are made of."""
    if isinstance(lessons.data, Outline):
        return
    runs = [*lessons.runs(lessons.train), lessons.data.test_story]
    for option in ("baselines", "residualize"):
        for name in getattr(config, option):
            if name in LOW_LEVEL and (kind := OF_WORDS.get(name)):
                yield from _without_words(f"{option}, {name}", kind, runs, lessons.data)


def _without_words(where: str, kind: str, runs: Sequence[str], data: Dataset) -> list[str]:
    problems = Problems()
    for run in runs:
        with problems.gathered(where):
            getattr(data, kind)(run)
    return problems.found
