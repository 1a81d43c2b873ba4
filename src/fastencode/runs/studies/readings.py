"""The checkpoints of a study whose layers are read, their names, and the tuning runs that make them.

    arm × model × hours ─► Tuning (one run per seed) ─► Reading (its final model, and one per epoch that the arm names)

A condition, which is what tables compare, is all readings that differ only in their seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fastencode.runs.studies.config import LOW_LEVEL, Arm, StudyConfig
from fastencode.study.conditions import Condition, conditions
from fastencode.tune.config import TuneConfig

__all__ = ["EVERYBODY", "Reading", "Tuning", "low_level_readings", "models_of", "readings_of"]

EVERYBODY = "everybody"
"""The owner of models that were not tuned on a single participant, in the names of folders."""


@dataclass(frozen=True)
class Tuning:
    """One tuning run; the same for each participant, or one run on all of them.

    Attributes
    ----------
    name : str
        Name of its folder.
    model : str
        Key of the study's models.
    config : TuneConfig
    together : bool
        Whether one model is tuned on all participants.
    hours : float, optional
        Hours of stories to tune on. None: all.
    imitates : str, optional
        Key of the model whose features are predicted instead of responses.
    """

    name: str
    model: str
    config: TuneConfig
    together: bool
    hours: float | None
    imitates: str | None

    @property
    def shares_frames(self) -> bool:
        """Whether it can use stored outputs of the frozen CNN: not if the CNN is tuned or clips are normalised by their batch."""
        return not self.config.unfreeze and self.config.normalize == "clip"


@dataclass(frozen=True)
class Reading:
    """One checkpoint whose layers are scored and probed.

    Attributes
    ----------
    name : str
        Name of its folder, and the model's name in fits.
    condition, label : str
        Name in tables, and name in figures.
    seed : int
    model : str
        Key of the study's models.
    tuning : Tuning, optional
        None: the model is not tuned.
    epoch : int, optional
        None: the model at the end of the run.
    line, line_label : str
        Name and label of its curve in figures over hours of data: the condition without the hours. "" if the arm has no hours.
    """

    name: str
    condition: str
    label: str
    seed: int
    model: str
    tuning: Tuning | None = None
    epoch: int | None = None
    line: str = ""
    line_label: str = ""

    @property
    def keeps_cnn(self) -> bool:
        """Whether its CNN is that of its model before tuning."""
        return self.tuning is None or not self.tuning.config.unfreeze

    def folders(self, participants: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
        """Owner → the participants whose responses the owner's model is scored on. One owner per model that was tuned."""
        if self.tuning is None or self.tuning.together:
            return {EVERYBODY: tuple(participants)}
        return {who: (who,) for who in participants}


def readings_of(config: StudyConfig) -> tuple[Reading, ...]:
    """Every checkpoint of a study, in the order of its arms."""
    return tuple(reading for arm in config.arms for model in _models(arm, config) for reading in _of_arm(arm, model, config))


def low_level_readings(config: StudyConfig) -> tuple[Reading, ...]:
    """Reference models of probes: MFCCs, and the first model's architecture with random weights; none without probes."""
    if not (config.probes.tasks and config.probes.low_level):
        return ()
    return tuple(Reading(name, name, label, 0, next(iter(config.models))) for name, label in LOW_LEVEL.items())


def models_of(readings: Sequence[Reading], baselines: Sequence[str] = ()) -> tuple[Condition, ...]:
    """All conditions with their colors and markers, in the order of tables: models, low-level features, curves over hours."""
    labels = {one.condition: one.label for one in readings} | {name: name for name in baselines}
    for one in readings:
        if one.line:
            labels.setdefault(one.line, one.line_label)
    return conditions(labels, labels.values())


def _models(arm: Arm, config: StudyConfig) -> tuple[str, ...]:
    return (arm.model,) if arm.model else tuple(config.models)


def _of_arm(arm: Arm, model: str, config: StudyConfig) -> Iterator[Reading]:
    several = len(_models(arm, config)) > 1
    name, label = (f"{model}-{arm.name}" if several else arm.name), arm.label or arm.name
    label = f"{model}, {label}" if several else label
    if not arm.is_tuned:
        yield Reading(name, name, label, 0, model)
        return
    for hours in arm.hours or (None,):
        condition, shown = (name, label) if hours is None else (f"{name}-{hours:g}h", f"{label}, {hours:g} h")
        runs = {}
        for seed in arm.seeds:
            slug = condition if len(arm.seeds) == 1 else f"{condition}-seed-{seed}"
            runs[seed] = Tuning(slug, model, config.tuning(arm, seed), arm.together, hours, arm.imitates)
        for epoch in (*arm.epochs, None):
            if epoch is not None and epoch == runs[arm.seeds[0]].config.epochs:
                continue  # the last epoch is the model at the end
            after = "" if epoch is None else f"-epoch-{epoch}"
            words = shown if epoch is None else f"{shown}, after epoch {epoch}"
            for seed, run in runs.items():
                line = ("", "") if hours is None or epoch is not None else (name, label)
                yield Reading(f"{run.name}{after}", f"{condition}{after}", words, seed, model, run, epoch, *line)
