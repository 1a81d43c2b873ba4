"""Simulated data that are not made yet, as a data set whose shapes are known but which has no files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from fastencode.data.layout import FIRST_ROW, TRIMMED_ROWS
from fastencode.errors import InputError
from fastencode.world.config import REGIONS, WorldConfig
from fastencode.world.simulate import TEST_STORY, VALIDATION_STORY

__all__ = ["Outline"]


class Outline:
    """The shapes of the data set that a simulation with these settings will make.

    See :class:`fastencode.data.dataset.Dataset` for the methods; those that need files raise an :class:`InputError`.
    """

    test_story = TEST_STORY

    def __init__(self, config: WorldConfig) -> None:
        self.tr, self._config = config.tr, config
        minutes = dict.fromkeys([*config.train_stories, VALIDATION_STORY], config.story_minutes)
        lengths = {
            story: round(60 * length / config.tr) for story, length in {**minutes, TEST_STORY: config.test_minutes}.items()
        }
        self._rows = {story: length + 2 * FIRST_ROW - TRIMMED_ROWS for story, length in lengths.items()}

    @property
    def participants(self) -> list[str]:
        return [who.name for who in self._config.participants]

    def stories(self, who: str) -> list[str]:
        return sorted(self._rows)

    def split(self, run: str) -> str:
        return {TEST_STORY: "test", VALIDATION_STORY: "validation"}.get(run, "train")

    def n_rows(self, run: str) -> int:
        return self._rows[run]

    def row_times(self, run: str, *, middle: bool = False) -> NDArray[np.float64]:
        return np.asarray(self.tr * (np.arange(self.n_rows(run)) + FIRST_ROW + 0.5 * middle))

    def usable_rows(self, run: str) -> slice:
        return slice(0, self.n_rows(run))

    def recording(self, run: str) -> str:
        return run

    def kept(self, who: str, run: str) -> NDArray[np.bool_]:
        return np.ones(self.n_rows(run), bool)

    def check_length(self, run: str, seconds: float, path: Path) -> None:
        """Does nothing, because there is no sound yet."""

    def n_voxels(self, who: str) -> int:
        return next(one.n_voxels for one in self._config.participants if one.name == who)

    def mask(self, who: str) -> None:
        """The voxels lie nowhere."""

    def notes(self, who: str) -> Sequence[str]:
        return []

    def rois(self, who: str, *, mask: object = None) -> dict[str, NDArray[np.intp]]:
        one = next(one for one in self._config.participants if one.name == who)
        edges = np.cumsum([0, one.auditory, one.late_language, one.silent])
        return {region: np.arange(edges[place], edges[place + 1]) for place, region in enumerate(REGIONS)}

    def is_repeated(self, who: str, run: str) -> bool:
        return run == TEST_STORY

    def response_files(self, who: str, run: str) -> Sequence[Path]:
        return []

    def sound_file(self, run: str) -> NoReturn:
        self._absent(run)

    def stimulus_files(self, run: str) -> Sequence[Path]:
        return []

    def words(self, run: str) -> NoReturn:
        self._absent(run)

    def phones(self, run: str) -> NoReturn:
        self._absent(run)

    def responses(self, who: str, run: str, *, voxels: object = None) -> NoReturn:
        self._absent(run)

    def repeats(self, who: str, run: str, *, voxels: object = None) -> NoReturn:
        self._absent(run)

    def _absent(self, run: str) -> NoReturn:
        raise InputError(f"{run} is not made yet: run the study without --dry-run")
