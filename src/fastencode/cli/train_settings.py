"""The settings of ``fastencode-tune train``: those of tuning, and of data, model and folders. Imports nothing slow."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path

from fastencode.errors import InputError
from fastencode.tune.config import LoraConfig, TuneConfig
from fastencode.tune.presets import preset

__all__ = ["LoraConfig", "TrainConfig"]  # LoraConfig: names in the types of fields are looked up here


@dataclass(frozen=True, kw_only=True)
class TrainConfig(TuneConfig):
    """Tune a speech model on the responses of people who heard the stories of a data set.

    Attributes
    ----------
    stories : Path
        Folder of the data set, in the layout of ds003020.
    model : str
        Folder or hub name of a wav2vec2, HuBERT, WavLM or Whisper model, of any size, or small: the model that ships with
        fastencode.
    out : Path
        Folder of the run. The same command goes on from what is in it; other settings, models or data are refused.
    preset : str, optional
        The settings of a published run, for all that is not given otherwise: interspeech2025, interspeech2025-code,
        followup-lora, followup-lora-code or brainwavlm. Where a published code differs from its paper, -code follows the code.
    participants : tuple of str
        Who is tuned on, all in one run that shares the speech model; all of the data set by default.
    each : bool
        One model for each participant instead, in OUT/<participant>.
    validation : tuple of str
        Stories that are predicted after each epoch and never tuned on. ``patience`` needs them: it goes by their loss.
    exclude : tuple of str
        Stories to leave out altogether.
    test_story : str
        The story that is never tuned on, by default that of ds003020. Its repeats give the noise ceilings.
    tr : float
        Repetition time in s; 2, as in ds003020, by default.
    ceiling : float
        Least noise ceiling, a correlation, of a voxel that is tuned on; 0.4, as published. It must be significant too (false
        discovery rate 5 %). Below 0 all voxels are tuned on.
    regions : tuple of str
        Tune only on voxels of these regions that pass ``ceiling``; all voxels where none is named.
    prefer : tuple of str
        Regions whose voxels count ``prefer_weight`` times in the loss.
    prefer_weight : float
        How many times a voxel of ``prefer`` counts as much as another one; below 1, less.
    rois : Path, optional
        Regions of interest: a folder with a folder or file for each participant, called as the participant; NIfTI, GIFTI, NumPy,
        JSON or text. By default the data set's own ``rois``.
    device : str, optional
        Such as "cuda"; by default a CUDA device if there is one, else the CPU.
    extend_epochs : bool
        Go on with a run that had fewer epochs. Rates go on as the longer run has them there: with the schedule linear, which had
        fallen to 0, they rise again. Without it a changed number of epochs is refused.
    dry_run : bool
        Only check data, shapes and model, time two batches, and estimate hours, memory and disk. Nothing is written.
    fast_dev_run : int
        Make so many updates, and as many batches of validation, of one epoch, then save everything and remove it again; with
        ``each``, of the first participant. 0 for a whole run.
    """

    stories: Path
    model: str
    out: Path = Path("run")
    preset: str | None = None
    participants: tuple[str, ...] = ()
    each: bool = False
    validation: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    test_story: str = "wheretheressmoke"
    tr: float = 2.0
    ceiling: float = 0.4
    regions: tuple[str, ...] = ()
    prefer: tuple[str, ...] = ()
    prefer_weight: float = 4.0
    rois: Path | None = None
    device: str | None = None
    extend_epochs: bool = False
    dry_run: bool = False
    fast_dev_run: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.preset is not None:
            preset(self.preset)
        if not self.model:
            raise InputError("model names none: give a folder, a hub name such as facebook/wav2vec2-base, or small")
        self._check_names()
        if not 0 < self.tr < math.inf:
            raise InputError(f"tr={self.tr:g}: give the repetition time in s, for example 2.0")
        if self.clip_seconds < self.tr:
            raise InputError(f"clip_seconds={self.clip_seconds:g}: a clip must hold its TR, {self.tr:g} s: give as much or more")
        if not -math.inf < self.ceiling < 1:
            raise InputError(f"ceiling={self.ceiling:g}: give a number below 1, for example 0.4")
        if not 0 < self.prefer_weight < math.inf:
            raise InputError(f"prefer_weight={self.prefer_weight:g}: give a number above 0, for example 4")
        if self.fast_dev_run < 0:
            raise InputError(f"fast_dev_run={self.fast_dev_run}: give a number of updates, for example 3, or 0 for a whole run")
        if self.fast_dev_run and self.dry_run:
            raise InputError("fast_dev_run makes updates, dry_run makes nothing: give one of them")
        if self.each and self.shared_head:
            raise InputError("shared_head shares a head among the participants of one run, each makes one run for each: give one")
        if self.patience and not self.validation:
            raise InputError(f"patience={self.patience} waits for a lower validation loss: name stories for validation")

    def _check_names(self) -> None:
        for name in ("participants", "validation", "exclude", "regions", "prefer"):
            given = getattr(self, name)
            if twice := sorted({item for item in given if given.count(item) > 1}):
                raise InputError(f"{name} names {twice[0]} more than once: name each once")
        if self.test_story in self.validation:
            raise InputError(f"validation names {self.test_story}, the test story: watch another one while tuning")
        if both := sorted(set(self.validation) & set(self.exclude)):
            raise InputError(f"exclude names {both[0]}, which is for validation: leave it out of one of them")
        if outside := sorted(set(self.prefer) - set(self.regions)) if self.regions else []:
            raise InputError(f"prefer names {outside[0]}, which is none of the regions that are tuned on: name it there, too")

    def tuning(self) -> TuneConfig:
        """The settings of tuning alone: what decides how a model learns, without data, folders and devices."""
        return TuneConfig(**{field.name: getattr(self, field.name) for field in fields(TuneConfig)})
