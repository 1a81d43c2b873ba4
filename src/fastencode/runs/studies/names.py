"""The stages of a study by name: everything that will be there, before anything is.

    frames/<model>   models/<owner>/<run>   features/<owner>/<reading>   change/<owner>/<reading>
    corpus-frames/<corpus>/<model>   pooled/<corpus>/<owner>/<reading>   probes/<task>/<owner>/<reading>

An owner is a participant, or everybody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property

from fastencode.runs.studies.config import StudyConfig
from fastencode.runs.studies.readings import Reading, Tuning, low_level_readings, readings_of

__all__ = ["Names", "corpus_of", "kind_of", "task_folder"]


def corpus_of(task: str) -> str:
    """The corpus of a task: "label:emotion@corpus", or that of the paper's task."""
    return task.partition("@")[2] or ("commands" if task == "word" else "timit")


def kind_of(task: str) -> str:
    """A task without its corpus."""
    return task.partition("@")[0]


def task_folder(task: str) -> str:
    """A task as a folder has it."""
    return task.replace(":", "-").replace("@", "-of-")


class Names:
    """Names of stages → what they are of.

    Parameters
    ----------
    config : StudyConfig
        Resolved.
    participants : sequence of str
    """

    def __init__(self, config: StudyConfig, participants: Sequence[str]) -> None:
        self.participants = tuple(participants)
        self.readings, self.low_level = readings_of(config), low_level_readings(config)
        self._config = config

    @property
    def corpora(self) -> list[str]:
        """The corpora that some task needs."""
        return list(dict.fromkeys(map(corpus_of, self._config.probes.tasks)))

    @cached_property
    def frames(self) -> dict[str, str]:
        """Key of the model."""
        return {f"frames/{key}": key for key in dict.fromkeys(reading.model for reading in self.readings)}

    @cached_property
    def models(self) -> dict[str, tuple[Tuning, str]]:
        """The run and its owner."""
        return {
            f"models/{owner}/{reading.tuning.name}": (reading.tuning, owner)
            for reading, owner in self._each(self.readings)
            if reading.tuning is not None
        }

    @cached_property
    def features(self) -> dict[str, tuple[Reading, str]]:
        """The reading and its owner."""
        return {f"features/{owner}/{reading.name}": (reading, owner) for reading, owner in self._each(self.readings)}

    @cached_property
    def corpus_frames(self) -> dict[str, tuple[str, str]]:
        """The corpus and the key of the model, where several readings are of one CNN. Those that would be too large are made
        by nobody."""
        count = Counter(reading.model for reading, _ in self._each(self.readings) if reading.keeps_cnn)
        shared = [key for key in self._config.models if count[key] > 1]
        return {f"corpus-frames/{corpus}/{key}": (corpus, key) for corpus in self.corpora for key in shared}

    @cached_property
    def pooled(self) -> dict[str, tuple[str, Reading, str]]:
        """The corpus, the reading and its owner."""
        probed = [*self._each((*self.readings, *self.low_level))]
        return {
            f"pooled/{corpus}/{owner}/{reading.name}": (corpus, reading, owner)
            for corpus in self.corpora
            for reading, owner in probed
        }

    @cached_property
    def probes(self) -> dict[str, tuple[str, Reading, str]]:
        """The task, the reading and its owner."""
        return {
            f"probes/{task_folder(task)}/{owner}/{reading.name}": (task, reading, owner)
            for task in self._config.probes.tasks
            for reading, owner in self._each((*self.readings, *self.low_level))
        }

    @cached_property
    def changes(self) -> dict[str, tuple[Reading, Reading, str]]:
        """The reading before tuning, the reading after it, and its owner."""
        untuned = {reading.model: reading for reading in self.readings if reading.tuning is None}
        return {
            f"change/{owner}/{reading.name}": (untuned[reading.model], reading, owner)
            for reading, owner in self._each(self.readings if self._config.change else ())
            if reading.tuning is not None and reading.model in untuned
        }

    def _each(self, readings: Sequence[Reading]) -> Iterator[tuple[Reading, str]]:
        for reading in readings:
            for owner in reading.folders(self.participants):
                yield reading, owner
