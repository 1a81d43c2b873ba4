"""The settings of ``fastencode-tune train``: those of tuning, and of data, model and folders. Imports nothing slow."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from fastencode.data.config import ImageSettings
from fastencode.errors import InputError
from fastencode.runs.config import LessonsConfig
from fastencode.tune.config import LoraConfig, TuneConfig
from fastencode.tune.presets import preset

__all__ = ["ImageSettings", "LoraConfig", "TrainConfig"]  # names in the types of fields are looked up here


@dataclass(frozen=True, kw_only=True)
class TrainConfig(TuneConfig, LessonsConfig):
    """Tune a speech model on the responses of people who heard the stories of a data set.

    Attributes
    ----------
    model : str
        Folder or hub name of a wav2vec2, HuBERT, WavLM or Whisper model, of any size, or small: the model that ships with
        fastencode.
    out : Path
        Folder of the run. The same command goes on from what is in it; other settings, models or data are refused.
    preset : str, optional
        The settings of a published run, for all that is not given otherwise: interspeech2025, interspeech2025-code,
        followup-lora, followup-lora-code or brainwavlm. Where a published code differs from its paper, -code follows the code.
    each : bool
        One model for each participant instead, in OUT/<participant>.
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

    model: str
    out: Path = Path("run")
    preset: str | None = None
    each: bool = False
    device: str | None = None
    extend_epochs: bool = False
    dry_run: bool = False
    fast_dev_run: int = 0

    def __post_init__(self) -> None:
        TuneConfig.__post_init__(self)
        if self.preset is not None:
            preset(self.preset)
        if not self.model:
            raise InputError("model names none: give a folder, a hub name such as facebook/wav2vec2-base, or small")
        LessonsConfig.__post_init__(self)
        if self.tr is not None and self.clip_seconds < self.tr:
            raise InputError(f"clip_seconds={self.clip_seconds:g}: a clip must hold its TR, {self.tr:g} s: give as much or more")
        if self.fast_dev_run < 0:
            raise InputError(f"fast_dev_run={self.fast_dev_run}: give a number of updates, for example 3, or 0 for a whole run")
        if self.fast_dev_run and self.dry_run:
            raise InputError("fast_dev_run makes updates, dry_run makes nothing: give one of them")
        if self.each and self.shared_head:
            raise InputError("shared_head shares a head among the participants of one run, each makes one run for each: give one")
        if self.patience and not self.validation:
            raise InputError(f"patience={self.patience} waits for a lower validation loss: name stories for validation")

    def tuning(self) -> TuneConfig:
        """The settings of tuning alone: what decides how a model learns, without data, folders and devices."""
        return TuneConfig(**{field.name: getattr(self, field.name) for field in fields(TuneConfig)})

    def lessons(self) -> LessonsConfig:
        """The settings of what is tuned on alone: the data set, its stories and voxels."""
        return LessonsConfig(**{field.name: getattr(self, field.name) for field in fields(LessonsConfig)})
