"""What a study reads: every checkpoint of every arm, what it is called, and the run of the trainer that makes it.

    arm × model × hours ─► Tuning (a run for each seed) ─► Reading (its end, and each epoch that is asked for)

A condition is what tables compare: the readings that differ in their seed only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fastencode.runs.studies.config import LOW_LEVEL, Arm, StudyConfig
from fastencode.study.conditions import Condition, conditions
from fastencode.tune.config import TuneConfig

__all__ = ["EVERYBODY", "Reading", "Tuning", "low_level_readings", "models_of", "readings_of"]

EVERYBODY = "everybody"
"""The folder of what belongs to no participant."""


@dataclass(frozen=True)
class Tuning:
    """One run of the trainer, for each participant or for all.

    Attributes
    ----------
    name : str
        Its folder.
    model : str
        Key of the study's models.
    config : TuneConfig
    together : bool
        Whether it learns from all participants.
    hours : float, optional
        Of sound to learn from; all by default.
    imitates : str, optional
        Key of the model whose features it learns.
    """

    name: str
    model: str
    config: TuneConfig
    together: bool
    hours: float | None
    imitates: str | None

    @property
    def shares_frames(self) -> bool:
        """Whether the frames of the frozen CNN serve it: they do not where the CNN learns, or clips depend on their batch."""
        return not self.config.unfreeze and self.config.normalize == "clip"


@dataclass(frozen=True)
class Reading:
    """One checkpoint.

    Attributes
    ----------
    name : str
        Its folder, and what fits call it.
    condition, label : str
        What tables and figures call it.
    seed : int
    model : str
        Key of the study's models.
    tuning : Tuning, optional
        None: the model as it is.
    epoch : int, optional
        None: the model at the end.
    line, line_label : str
        What a curve over hours of data and its legend call it: the condition without the hours. "" where no hours are named.
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
        """Its folders: one for each participant, or one for everybody → whose responses it is scored on."""
        if self.tuning is None or self.tuning.together:
            return {EVERYBODY: tuple(participants)}
        return {who: (who,) for who in participants}


def readings_of(config: StudyConfig) -> tuple[Reading, ...]:
    """Every checkpoint of a study, in the order of its arms."""
    return tuple(reading for arm in config.arms for model in _models(arm, config) for reading in _of_arm(arm, model, config))


def low_level_readings(config: StudyConfig) -> tuple[Reading, ...]:
    """What probes are compared with, where they are: cepstra, and a model with random weights in the shape of the first."""
    if not (config.probes.tasks and config.probes.low_level):
        return ()
    return tuple(Reading(name, name, label, 0, next(iter(config.models))) for name, label in LOW_LEVEL.items())


def models_of(readings: Sequence[Reading], baselines: Sequence[str] = ()) -> tuple[Condition, ...]:
    """The conditions as tables and figures show them, in order; then low-level features, and curves over hours of data."""
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
