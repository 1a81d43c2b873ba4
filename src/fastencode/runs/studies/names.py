"""Names of a study's stages. They follow from the settings, so they are known before any stage runs.

    frames/<model>   models/<owner>/<run>   features/<owner>/<reading>   change/<owner>/<reading>
    corpus-frames/<corpus>/<model>   pooled/<corpus>/<owner>/<reading>   probes/<task>/<owner>/<reading>

<owner> is the participant on whom a model was tuned, or "everybody". <reading> is a checkpoint (:class:`Reading`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property

from fastencode.files import folder_name
from fastencode.runs.studies.config import StudyConfig
from fastencode.runs.studies.readings import Reading, Tuning, low_level_readings, readings_of

__all__ = ["Names", "corpus_of", "kind_of"]


def corpus_of(task: str) -> str:
    """The corpus of a task: the part after "@" if there is one, else "commands" for the task word, else "timit"."""
    return task.partition("@")[2] or ("commands" if task == "word" else "timit")


def kind_of(task: str) -> str:
    """The name of a task without its corpus: "label:emotion" of "label:emotion@mine"."""
    return task.partition("@")[0]


class Names:
    """Mappings from the names of a study's stages to what each stage computes.

    Parameters
    ----------
    config : StudyConfig
        With defaults filled in (``config.resolved()``).
    participants : sequence of str
    """

    def __init__(self, config: StudyConfig, participants: Sequence[str]) -> None:
        self.participants = tuple(participants)
        self.readings, self.low_level = readings_of(config), low_level_readings(config)
        self._config = config

    @property
    def corpora(self) -> list[str]:
        """The corpora that the study's tasks need."""
        return list(dict.fromkeys(map(corpus_of, self._config.probes.tasks)))

    @cached_property
    def frames(self) -> dict[str, str]:
        """Stage → key of the model."""
        return {f"frames/{key}": key for key in dict.fromkeys(reading.model for reading in self.readings)}

    @cached_property
    def models(self) -> dict[str, tuple[Tuning, str]]:
        """Stage → (tuning run, owner)."""
        return {
            f"models/{owner}/{reading.tuning.name}": (reading.tuning, owner)
            for reading, owner in self._each(self.readings)
            if reading.tuning is not None
        }

    @cached_property
    def features(self) -> dict[str, tuple[Reading, str]]:
        """Stage → (reading, owner)."""
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
        """Stage → (corpus, reading, owner)."""
        probed = [*self._each((*self.readings, *self.low_level))]
        return {
            f"pooled/{corpus}/{owner}/{reading.name}": (corpus, reading, owner)
            for corpus in self.corpora
            for reading, owner in probed
        }

    @cached_property
    def probes(self) -> dict[str, tuple[str, Reading, str]]:
        """Stage → (task, reading, owner)."""
        return {
            f"probes/{folder_name(task)}/{owner}/{reading.name}": (task, reading, owner)
            for task in self._config.probes.tasks
            for reading, owner in self._each((*self.readings, *self.low_level))
        }

    @cached_property
    def changes(self) -> dict[str, tuple[Reading, Reading, str]]:
        """Stage → (reading of the untuned model, reading of the tuned model, owner)."""
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
