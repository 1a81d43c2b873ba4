"""What published runs used, as settings: ``preset("interspeech2025")``. Imports nothing slow.

Every value is marked. (D) is stated in a paper. (C) was read in the published code. (I) follows from them. (U) is not known: what
stands here was chosen. Where a code differs from its paper, the preset follows the paper, and its twin with ``-code`` the code.
Stories are those of the data set ds003020, on which all of these ran; for other data give ``validation`` and ``exclude`` anew.

interspeech2025
    Brain-tuned speech models, one for each participant (arXiv 2506.03832, and arXiv 2410.09230 with the code
    bridge-ai-neuro/brain-tuning).

    - model: wav2vec2-base (D, C); its authors also tuned hubert-base-ls960 and the encoder of whisper-small (D).
    - trained: all transformer layers and the head, frozen CNN (D, C). head: the mean over the frames of the last layer, then one
      linear layer (D, C). loss: mean squared error (D, C).
    - learning_rate 5e-5, head_learning_rate 1e-4, Adam, so weight_decay 0 (C). epochs 30 (C). schedule: linear with 10 % warm_up
      (D). batch: 128 consecutive scans of one story (C).
    - clip_seconds: 10, the scan's 2 s and four scans before it (C). normalize: each clip (I: what the checkpoint was trained on).
    - train_mode: false, no dropout (I: the code leaves the model in evaluation mode). clip_norm 0 (C). precision: float32 (C).
    - patience: early stopping on the validation loss is stated (D), how many epochs is not: 5 was chosen (U).
    - ceiling: voxels with a noise ceiling above 0.4 (D, C). validation: stagefright. exclude: life, so 24 stories remain (D, C).
    - keep: epochs 0 to 5, then every 5th (C); 5, 10 and 20 were evaluated (D).
    - order: contiguous takes the batches in random order; the code takes the stories, and their batches, always in the same
      order (C). What the paper did is not known (U).

interspeech2025-code
    - schedule: epochs, which sets both rates once an epoch (C). patience: 0, nothing stops early (C).
    - normalize: all clips of a batch together (C: the extractor gets the batch as one sound).

followup-lora
    One model for several participants (arXiv 2510.21520, code bridge-ai-neuro/multi-brain-tuning).

    - model: wav2vec2-base-960h (C); hubert-base-ls960 as well (D, C). trained: LoRA of rank 8, alpha 32, dropout .1 on the
      attention's q, k, v and out (D, C).
    - learning_rate, head_learning_rate: 1e-4 both, AdamW (C). weight_decay: 0.01, what torch's AdamW has by default (C, I).
    - schedule: linear with 10 % warm_up (D). epochs 30, batch 128, order, clip_seconds, normalize, loss: as above (C).
    - shared_head: one linear head for all, on 30 172 vertices of a common surface (D, C), so every participant's responses
      must have the same columns. ceiling: -1, no choice of voxels (C: those vertices are the language regions on that surface).
    - validation: itsabox (C). patience: 0 (C; nothing is stated). keep: 3, 5, 10, 20 and 30 (D).
    - Here the loss of a clip is the mean over those who heard it, in one update; the code updates for one participant after
      the other (C). Equal numbers of updates need epochs times the number of participants.

followup-lora-code
    - schedule: miscounted (C: planned for three times the steps that are taken, and stepped once a story).
    - normalize: all clips of a batch together (C: as above). keep: epochs 0 to 5, then every 5th (C).
    - The code's LoRA dropout probably stays on in evaluation, too (I); here it is off there.

brainwavlm
    WavLM with the alignment's own path inside the model (arXiv 2502.08866, code in chengemily1/brain-id-abstract). No difference
    between its text and its code is known, so it has no twin.

    - model: wavlm-base-plus, head_layer 9, LoRA of rank 4, alpha 4, dropout .1 on q, k, v (C). bottleneck 100 (C).
    - head: Lanczos to scans, z-scored, delays 1 to 4 (C). The code z-scores within a block of 10 scans (C); what does so here is
      described at :attr:`fastencode.tune.config.TuneConfig.head`.
    - loss: spatial_r (D, C). learning_rate, head_learning_rate: 1e-4 both, constant, Adam: weight_decay and warm_up 0 (C).
    - epochs 20, batch: 10 consecutive scans (C). order: contiguous takes them in random order, the code in sequence (C).
    - train_mode: true, the model's own dropout is on while training (C).
    - clip_seconds: 5.75. The code reads a window of 4 s for every 0.25 s (C). Here one clip of 2 s + 3.75 s gives the frames of a
      whole scan, none of which has heard less than the 3.75 s before it that each window holds (I; needs a TR of 2 s).
    - ceiling: -1, all voxels (C). validation: fromboyhoodtofatherhood and onapproachtopluto (C).
    - keep: every epoch, patience 0: a ridge refitted on each epoch's features chooses the epoch (C).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

from fastencode.errors import InputError, suggestion
from fastencode.tune.config import LoraConfig, TuneConfig

__all__ = ["PRESETS", "Preset", "preset"]


@dataclass(frozen=True)
class Preset:
    """Settings of a published run.

    Attributes
    ----------
    model : str
        Hub name of the model that was tuned.
    validation, exclude : tuple of str
        Stories that were watched while tuning; stories that were left out.
    ceiling : float
        Least noise ceiling of a voxel that was tuned on; below 0 all voxels were.
    settings : mapping
        Names of :class:`fastencode.tune.config.TuneConfig` → values; what is not named has its default.
    """

    model: str
    validation: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    ceiling: float = 0.4
    settings: Mapping[str, Any] = field(default_factory=dict)

    def config(self) -> TuneConfig:
        """The settings of tuning, with every value that the preset leaves at its default."""
        return TuneConfig(**self.settings)

    def flat(self) -> dict[str, Any]:
        """Everything by dotted names, as plain values: what ``fastencode-tune train --preset`` sets. Tuples are lists."""
        found: dict[str, Any] = {"model": self.model, "validation": self.validation, "exclude": self.exclude}
        found |= {"ceiling": self.ceiling, **self.settings}
        if isinstance(lora := found.pop("lora", None), LoraConfig):
            found |= {f"lora.{name}": value for name, value in asdict(lora).items()}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


_STEPS = (0, 1, 2, 3, 4, 5, 10, 15, 20, 25, 30)  # epochs that both codes of Moussa and Toneva keep

_INTERSPEECH: dict[str, Any] = {
    "epochs": 30,
    "batch": 128,
    "learning_rate": 5e-5,
    "head_learning_rate": 1e-4,
    "weight_decay": 0.0,
    "schedule": "linear",
    "warm_up": 0.1,
    "clip_seconds": 10.0,
    "normalize": "clip",
    "order": "contiguous",
    "trained": "full",
    "loss": "mse",
    "patience": 5,
    "keep": _STEPS,
}

_FOLLOWUP: dict[str, Any] = _INTERSPEECH | {
    "learning_rate": 1e-4,
    "weight_decay": 0.01,
    "trained": "lora",
    "lora": LoraConfig(rank=8, alpha=32.0, dropout=0.1, targets=("q_proj", "k_proj", "v_proj", "out_proj")),
    "shared_head": True,
    "patience": 0,
    "keep": (3, 5, 10, 20, 30),
}

_BRAINWAVLM: dict[str, Any] = {
    "epochs": 20,
    "batch": 10,
    "learning_rate": 1e-4,
    "head_learning_rate": 1e-4,
    "weight_decay": 0.0,
    "schedule": "constant",
    "warm_up": 0.0,
    "clip_seconds": 5.75,
    "normalize": "clip",
    "order": "contiguous",
    "trained": "lora",
    "lora": LoraConfig(rank=4, alpha=4.0, dropout=0.1, targets=("q_proj", "k_proj", "v_proj")),
    "head_layer": 9,
    "head": "delays",
    "delays": (1, 2, 3, 4),
    "bottleneck": 100,
    "loss": "spatial_r",
    "train_mode": True,
    "keep": tuple(range(21)),
}


def _interspeech(**code: Any) -> Preset:
    return Preset("facebook/wav2vec2-base", ("stagefright",), exclude=("life",), settings=MappingProxyType(_INTERSPEECH | code))


def _followup(**code: Any) -> Preset:
    settings = MappingProxyType(_FOLLOWUP | code)
    return Preset("facebook/wav2vec2-base-960h", ("itsabox",), ceiling=-1.0, settings=settings)


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "interspeech2025": _interspeech(),
        "interspeech2025-code": _interspeech(schedule="epochs", patience=0, normalize="batch"),
        "followup-lora": _followup(),
        "followup-lora-code": _followup(schedule="miscounted", normalize="batch", keep=_STEPS),
        "brainwavlm": Preset(
            "microsoft/wavlm-base-plus",
            ("fromboyhoodtofatherhood", "onapproachtopluto"),
            ceiling=-1.0,
            settings=MappingProxyType(_BRAINWAVLM),
        ),
    }
)


def preset(name: str) -> Preset:
    """The settings of a published run, by its name in :data:`PRESETS`.

    Raises
    ------
    InputError
        If there is no preset of that name; the nearest one is named.
    """
    if name in PRESETS:
        return PRESETS[name]
    twin = name.removesuffix("-code")
    if twin != name and twin in PRESETS:
        raise InputError(f"there is no preset {name!r}: the code of {twin} is not known to differ from its text; give {twin}")
    raise InputError(f"there is no preset {name!r}: {suggestion(name, PRESETS)}")
