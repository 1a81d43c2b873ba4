"""What a run would take, before it is begun: two batches of noise are timed, and the rest follows from shapes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch

from fastencode.speech.layers import SpeechEncoder
from fastencode.tune.batches import Part
from fastencode.tune.config import TuneConfig
from fastencode.tune.lessons import Lessons
from fastencode.tune.loss import LossKind, voxel_loss
from fastencode.tune.model import BrainModel, Rows
from fastencode.tune.prepare import cache_bytes

__all__ = ["Cost", "cost_of"]


@dataclass(frozen=True)
class Cost:
    """Attributes
    ----------
    device : str
    clips, updates : int
        Clips of an epoch; updates of all.
    seconds : float
        Of all updates, without validation.
    memory, disk : int
        Bytes: weights, gradients, the optimizer's moments and a batch's activations; and files while a run is in progress.
    """

    device: str
    clips: int
    updates: int
    seconds: float
    memory: int
    disk: int


def cost_of(encoder: SpeechEncoder, lessons: Lessons, config: TuneConfig) -> Cost:
    """The cost of a run of one process.

    Raises
    ------
    InputError
        If the model and the settings do not fit.
    """
    voxels = {who: len(chosen) for who, chosen in lessons.voxels.items()}
    model = BrainModel(encoder, config, voxels, tr=lessons.data.tr)
    model.training_mode(True)
    clips = sum(lessons.data.n_rows(run) for run in lessons.runs(lessons.train))
    size = min(config.batch, clips)
    updates = config.epochs * -(-clips // (config.batch * config.accumulate))
    seconds, kept = 0.0, 0
    for _ in range(2):  # the first one warms up
        began = time.perf_counter()
        kept = _try_batch(model, lessons, config, size)
        seconds = time.perf_counter() - began
    learned = sum(p.numel() for p in model.trained().values())
    heads = sum(p.numel() for p in model.groups()[1]["params"])
    weights = sum(p.numel() for p in model.parameters())
    rows = {who: sum(lessons.data.n_rows(run) for run in (*lessons.train[who], *lessons.validation[who])) for who in voxels}
    responses = sum(rows[who] * count for who, count in voxels.items())
    cached = config.cnn_cache != "off" and not config.unfreeze and config.epochs > 1
    frames = cache_bytes(encoder, lessons, config) if cached else 0
    if config.cnn_cache == "auto" and frames > 1e9 * config.cache_gb:
        frames = 0
    models = (1 + len(config.keep) + bool(config.patience)) * weights
    return Cost(
        encoder.device,
        clips,
        updates,
        seconds * updates * config.accumulate,
        4 * (weights + 3 * learned + (learned - heads)) + kept,
        frames + 4 * (responses + 2 * 3 * learned + models),
    )


def _try_batch(model: BrainModel, lessons: Lessons, config: TuneConfig, size: int) -> int:
    """One forward and backward pass of noise; returns the bytes that were kept between them."""
    encoder, rng = model.encoder, np.random.default_rng(0)
    n, kept = round(config.clip_seconds * encoder.sample_rate), 0
    before, after = model.halo
    noise = torch.from_numpy(rng.standard_normal((size + before + after, n)).astype(np.float32)).to(encoder.device)

    def count(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    ends = lessons.data.tr * np.arange(1.0, len(noise) + 1)
    part = Part(noise, ends, slice(before, before + size), {}, ())
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        rows = Rows(part.ends, part.keep) if config.head == "delays" else None
        state = model.state(model.front(part.clips), n, rows)
        loss = state.sum() * 0
        for who, chosen in lessons.voxels.items():
            head = model.head(who)
            responses = torch.randn(size, len(chosen), device=encoder.device)
            loss = loss + voxel_loss(head.reduce(state), head.weight, head.bias, responses, kind=cast(LossKind, config.loss))
    if loss.requires_grad:
        loss.backward()
    model.zero_grad(set_to_none=True)
    return kept
