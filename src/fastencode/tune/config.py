"""Settings of brain-tuning, and of making the small model. Imports nothing slow."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from fastencode.errors import InputError

__all__ = ["SMALL_FAMILIES", "TARGETS", "LoraConfig", "PretrainConfig", "TuneConfig"]


SMALL_FAMILIES = ("wav2vec2", "hubert", "whisper")
TARGETS = ("brain", "permuted", "shifted", "stimulus", "model")

_CHOICES: dict[str, tuple[str, ...]] = {
    "schedule": ("linear", "constant", "epochs", "miscounted"),
    "normalize": ("clip", "batch"),
    "order": ("shuffled", "story", "contiguous"),
    "trained": ("full", "lora", "head"),
    "head": ("pooled", "delays"),
    "loss": ("mse", "spatial_r", "temporal_r", "cosine_mse"),
    "own_loss": ("clusters", "contrastive"),
    "precision": ("float32", "bfloat16"),
    "cnn_cache": ("auto", "on", "off"),
}


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters (Hu et al. 2021): W + alpha/rank · B A instead of W, with W as it was.

    Attributes
    ----------
    rank : int
        Rows of A.
    alpha : float
        The product B A is multiplied by alpha / rank. 8, 32 and .1 are what Moussa and Toneva used (preset followup-lora).
    dropout : float
        Share of the inputs of A that are dropped while training, from 0 to below 1; none in evaluation.
    targets : tuple of str
        Names of the linear maps in each layer that get an adapter, as the model calls them: by default the four of the attention.
    """

    rank: int = 8
    alpha: float = 32.0
    dropout: float = 0.1
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "out_proj")

    def __post_init__(self) -> None:
        _check_positive(self, "rank", "alpha")
        _check_whole(self, "rank")
        _check_share(self, "dropout")
        if not self.targets:
            raise InputError("lora.targets names no linear map: give some, such as q_proj v_proj")


@dataclass(frozen=True)
class TuneConfig:
    """How a speech model is tuned on responses.

    Attributes
    ----------
    epochs : int
        Passes over the training clips.
    batch : int
        Clips that go through the model at once, in each process.
    accumulate : int
        Batches of which one update is made: batch × accumulate × processes clips, with the loss of all of them together.
    learning_rate : float
        AdamW's peak for the speech model. The default suits the model that ships with fastencode; published runs of base models
        used 5e-5 (all layers) and 1e-4 (LoRA): see :mod:`fastencode.tune.presets`.
    head_learning_rate : float
        AdamW's peak for the heads, the linear maps to voxels, which begin at random; published runs used 1e-4.
    weight_decay : float
        AdamW's, on everything that is tuned. With 0, AdamW is Adam.
    schedule : str
        linear: rises from 0 over ``warm_up``, then falls linearly to 0 at the last update. constant: rises and stays. epochs: the
        speech model's rate is epoch / 5 of its peak before epoch 5 and then falls linearly to 0, the head's max(.8^epoch, .1).
        miscounted: linear, in stories heard, planned for three times as many as there are (a published code).
    warm_up : float
        Share of the updates over which rates rise, for the schedules linear and constant.
    clip_norm : float
        Largest norm of all gradients together, those of the heads too; larger ones are scaled down. 0 does not limit it.
    clip_seconds : float
        Seconds of sound for each scan: its TR and what was heard before it, silence before the recording began. 10, as published:
        the scan's 2 s and four scans before it.
    normalize : str
        clip: each clip to zero mean and unit variance, where the model's checkpoint asks for it. batch: all clips of a
        story that go through the model at once, together (a published code).
    order : str
        shuffled: clips of all stories in random order. story: random clips of one story in a batch. contiguous: consecutive clips
        of one story in a batch, batches in random order.
    trained : str
        What learns beside the head. full: all transformer layers. lora: adapters. head: nothing.
    unfreeze : tuple of str
        What else learns, that is frozen otherwise: cnn (the convolutions below the transformer).
    lora : LoraConfig
        For ``trained`` lora.
    head_layer : int, optional
        The layer that the head reads, 0 for what the transformer receives; layers above get no gradient. By default the model's
        output.
    head : str
        pooled: the mean over a clip's frames predicts the clip's last scan. delays: the frames of each clip's last TR, resampled
        to scans (Lanczos), z-scored and delayed, predict them, as the alignment does; batches are consecutive clips of a story.
    delays : tuple of int
        In TRs, for the head delays; 1 to 4 as in the alignment.
    bottleneck : int
        Width of a linear layer between the state and the voxels; 0 for none.
    shared_head : bool
        One head for all participants, whose responses then have equal columns (vertices of a common surface).
    loss : str
        mse: mean squared error. spatial_r: 1 − Pearson r over the voxels, of each scan. temporal_r: 1 − Pearson r over the scans
        that go through the model at once, of each voxel; ``accumulate`` and more processes take the mean of such losses.
        cosine_mse: 1 − cosine over the voxels, of each scan, plus mse.
    own_weight : float
        Weight of the model's own self-supervised loss beside the brain's, whose weight is 1; 0 for none. Whisper has none.
    own_loss : str
        clusters: tell which cluster of frames is hidden under a mask, as HuBERT learned. contrastive: wav2vec 2.0's, for
        checkpoints that hold a quantizer. See :class:`fastencode.tune.own_loss.OwnLoss`.
    word_weight : float
        Weight of a loss of words: which of ``words`` were heard in the last scan, from the state that the heads read; 0 for none.
        Needs the transcripts of the stories.
    words : int
        How many words this loss knows: the most frequent ones of the training stories.
    targets : str
        brain; permuted: responses in blocks that moved far (a control); shifted: responses ``shift_seconds`` late, around the end
        of a story to its beginning; stimulus: no responses, the model's own self-supervised loss on the stories; model:FOLDER:
        another model's features.
    permutation : int
        Number of the permutation, for ``targets`` permuted: each number is another order of the blocks.
    block : int
        Scans in a block, for ``targets`` permuted; 15 as published.
    min_move : int
        The least number of blocks that each moves by, for ``targets`` permuted; 10 as published, at most a third of all blocks.
    shift_seconds : float
        Seconds by which responses are late, for ``targets`` shifted; rounded to scans. A hemodynamic response lasts 20 to 30 s:
        less than that leaves targets that the sound still predicts.
    precision : str
        float32 or bfloat16: what the transformer computes in. The CNN, the heads, weights, sums and the optimizer are float32.
    train_mode : bool
        Turn the model's own dropout on while training. The runs of Moussa and Toneva left it off, that of BrainWavLM had it on.
    checkpointing : bool
        Compute activations again in the backward pass: less memory, a third more time.
    fused_head_step : bool
        Update a tile of the head's weights while its gradient is at hand: the gradient of the whole head is never stored. Of one
        process only, and not together with clip_norm, accumulate, shared_head or bottleneck.
    cnn_cache : str
        Keep the output of the frozen CNN on disk until the run ends: on, off or auto. auto: where it does not change, more than
        one epoch reads it, scans end at multiples of the TR, and it takes at most ``cache_gb`` and half of the free disk.
    cache_gb : float
        Most gigabytes (10⁹ bytes) that this cache may take, for ``cnn_cache`` auto.
    patience : int
        Epochs without a lower validation loss after which tuning stops; the best epoch is then the one saved. 0: no early stop.
    keep : tuple of int
        Epochs whose models are kept in checkpoints/ to read layers from; 0 is the model before any update.
    save_total_limit : int
        Kept epochs beyond this number are removed, oldest first; 0 keeps all of ``keep``. With ``patience`` the best epoch stays
        and does not count.
    save_minutes : float
        Minutes between the states from which a killed run goes on: at most so much work is lost. The end of an epoch is one, too.
    log_every : int
        Updates between lines of the log.
    seed : int
        Seeds the first weights of heads and adapters, the order of clips, dropout, masks, clusters and permutations.
    """

    epochs: int = 5
    batch: int = 8
    accumulate: int = 1
    learning_rate: float = 5e-4
    head_learning_rate: float = 1e-3
    weight_decay: float = 0.01
    schedule: str = "linear"
    warm_up: float = 0.1
    clip_norm: float = 0.0
    clip_seconds: float = 10.0
    normalize: str = "clip"
    order: str = "shuffled"
    trained: str = "full"
    unfreeze: tuple[str, ...] = ()
    lora: LoraConfig = field(default_factory=LoraConfig)
    head_layer: int | None = None
    head: str = "pooled"
    delays: tuple[int, ...] = (1, 2, 3, 4)
    bottleneck: int = 0
    shared_head: bool = False
    loss: str = "mse"
    own_weight: float = 0.0
    own_loss: str = "clusters"
    word_weight: float = 0.0
    words: int = 500
    targets: str = "brain"
    permutation: int = 1
    block: int = 15
    min_move: int = 10
    shift_seconds: float = 60.0
    precision: str = "float32"
    train_mode: bool = False
    checkpointing: bool = False
    fused_head_step: bool = False
    cnn_cache: str = "auto"
    cache_gb: float = 50.0
    patience: int = 0
    keep: tuple[int, ...] = ()
    save_total_limit: int = 0
    save_minutes: float = 10.0
    log_every: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        _check_positive(self, "epochs", "batch", "accumulate", "learning_rate", "head_learning_rate", "clip_seconds", "words")
        _check_positive(self, "block", "min_move", "cache_gb", "save_minutes", "log_every")
        _check_whole(self, "epochs", "batch", "accumulate", "bottleneck", "words", "permutation", "block", "min_move", "patience")
        _check_whole(self, "save_total_limit", "log_every", "seed")
        _check_share(self, "warm_up")
        for name in ("weight_decay", "clip_norm", "own_weight", "word_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} must be 0 or more, got {getattr(self, name)}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise InputError(f"{name}={getattr(self, name)!r}: choose {', '.join(choices[:-1])} or {choices[-1]}")
        self._check_targets()
        self._check_together()

    def _check_targets(self) -> None:
        kind, _, folder = self.targets.partition(":")
        if kind not in TARGETS or (kind == "model") != bool(folder):
            known = ", ".join(TARGETS[:-1])
            raise InputError(f"targets={self.targets!r}: choose {known} or model:FOLDER")
        if not math.isfinite(self.shift_seconds) or not self.shift_seconds:
            raise InputError(f"shift_seconds={self.shift_seconds}: give seconds by which responses are late, not 0")

    def _check_together(self) -> None:
        """Settings that exclude each other."""
        if unknown := set(self.unfreeze) - {"cnn"}:
            raise InputError(f"unfreeze names {sorted(unknown)[0]!r}: cnn is all that can be unfrozen")
        if self.head_layer is not None and self.head_layer < 0:
            raise InputError(f"head_layer={self.head_layer}: give the number of a layer, 0 or more")
        if self.head == "delays" and not (self.delays and all(delay >= 0 for delay in self.delays)):
            raise InputError(f"delays={self.delays}: give delays in TRs, 0 or more")
        if self.head == "delays" and self.order != "contiguous":
            raise InputError(f"head=delays reads consecutive scans, order={self.order!r} mixes them: give order=contiguous")
        if self.head == "delays" and self.word_weight and 0 not in self.delays:
            raise InputError(
                f"word_weight asks for the words of each scan, which head=delays with delays={self.delays} does not hear: add"
                " delay 0, or leave one out"
            )
        if self.fused_head_step and self.clip_norm:
            raise InputError("fused_head_step never has the head's gradient, so clip_norm cannot count it: leave one out")
        if self.fused_head_step and (self.accumulate > 1 or self.shared_head or self.bottleneck):
            raise InputError("fused_head_step updates a head at each batch: not with accumulate, shared_head or bottleneck")
        if self.targets == "stimulus" and self.unfreeze:
            raise InputError(
                "unfreeze=cnn has nothing to learn from with targets=stimulus: the own loss predicts what the CNN makes"
            )
        if self.cnn_cache == "on" and self.unfreeze:
            raise InputError("cnn_cache=on keeps what unfreeze=cnn changes: leave one out")
        if self.cnn_cache == "on" and self.normalize == "batch":
            raise InputError("cnn_cache=on keeps clips that normalize=batch changes from batch to batch: leave one out")
        if late := [epoch for epoch in self.keep if not 0 <= epoch <= self.epochs]:
            known = f"there are epochs 0 (before any update) to {self.epochs}"
            raise InputError(f"keep names epoch {late[0]}, but {known}: name others, or [] to keep none")


@dataclass(frozen=True)
class PretrainConfig:
    """How the small model is made.

    Attributes
    ----------
    family : {"wav2vec2", "hubert", "whisper"}
        The shape (``tune/small_models.py``) and what is learned: Wav2Vec2 and Whisper predict clusters of MFCC + Δ at masked
        frames, HuBERT's first iteration; HuBERT predicts clusters of a hidden state of the small Wav2Vec2 that ships with the
        package, HuBERT's second iteration.
    minutes : float
        Minutes of synthetic speech to learn from; a twelfth more is held out for the reported accuracy.
    steps, batch, clip_seconds : int, int, float
        Optimizer steps, clips in a batch and seconds in a clip.
    clusters : int
        Number of k-means classes of what is predicted.
    learning_rate : float
        AdamW's peak, after 8 % of the steps; it then falls linearly to 0.
    mask_share, mask_frames : float, int
        Share of the frames under a mask, and frames in one span.
    seed : int
        Seeds the stories, the clusters, the weights, the clips and the masks.
    """

    family: str = "wav2vec2"
    minutes: float = 60.0
    steps: int = 2000
    batch: int = 8
    clip_seconds: float = 10.0
    clusters: int = 100
    learning_rate: float = 1e-3
    mask_share: float = 0.5
    mask_frames: int = 8
    seed: int = 7

    def __post_init__(self) -> None:
        _check_positive(self, "minutes", "steps", "batch", "clip_seconds", "clusters", "learning_rate", "mask_frames")
        _check_whole(self, "steps", "batch", "clusters", "mask_frames", "seed")
        if self.family not in SMALL_FAMILIES:
            raise InputError(f"family is {self.family!r}: choose one of {', '.join(SMALL_FAMILIES)}")
        if self.family == "whisper" and self.clip_seconds > 10:
            raise InputError(f"the small Whisper hears 10 s at once: clip_seconds must be 10 or less, got {self.clip_seconds}")
        if self.clip_seconds > 60 * min(self.minutes, 5):
            raise InputError(f"clip_seconds must fit into a story of {60 * min(self.minutes, 5):g} s, got {self.clip_seconds}")
        if not 0 < self.mask_share < 1:
            raise InputError(f"mask_share must lie between 0 and 1, got {self.mask_share}")


def _check_positive(settings: Any, *names: str) -> None:
    for name in names:
        if not 0 < getattr(settings, name) < math.inf:
            raise InputError(f"{name} must be positive, got {getattr(settings, name)}")


def _check_whole(settings: Any, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        if value != int(value) or value < 0:
            raise InputError(f"{name} must be a whole number, 0 or more, got {value}")


def _check_share(settings: Any, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(settings, name) < 1:
            raise InputError(f"{name} must be 0 or more and below 1, got {getattr(settings, name)}")
