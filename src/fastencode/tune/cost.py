"""What a run would take, before it is begun: two batches of noise are timed, and the rest follows from shapes."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch

from fastencode.speech.layers import SpeechEncoder
from fastencode.tune.batches import Part, order_of_epoch
from fastencode.tune.config import TuneConfig
from fastencode.tune.lessons import Lessons
from fastencode.tune.loss import LossKind, voxel_loss
from fastencode.tune.model import BrainModel, Rows
from fastencode.tune.prepare import cache_bytes, keeps_frames

__all__ = ["Cost", "cost_of"]


@dataclass(frozen=True)
class Cost:
    """What a run would take.

    Attributes
    ----------
    device : str
    clips, updates : int
        Clips of one epoch; updates of all epochs.
    seconds : float
        Time of all updates, in s; validation, files and the CNN's frames are not in it.
    memory : int
        Bytes of weights, gradients, moments, first weights and what a batch keeps for its backward pass; without the libraries.
    disk : int
        Bytes of files while the run is in progress: frames, responses, states and models.
    """

    device: str
    clips: int
    updates: int
    seconds: float
    memory: int
    disk: int


def cost_of(encoder: SpeechEncoder, lessons: Lessons, config: TuneConfig) -> Cost:
    """What a run of one process would take, by two batches of noise that are timed now, and by shapes.

    Raises
    ------
    InputError
        If the model and the settings do not fit.
    """
    voxels = {who: len(chosen) for who, chosen in lessons.voxels.items()}
    model = BrainModel(encoder, config, voxels, tr=lessons.data.tr)
    model.training_mode(True)
    n_rows = [lessons.data.n_rows(run) for run in lessons.runs(lessons.train)]
    clips = sum(n_rows)
    size = min(config.batch, clips)
    updates = config.epochs * len(order_of_epoch(n_rows, 1, config.batch * config.accumulate, config))
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
    frames = cache_bytes(encoder, lessons, config) if keeps_frames(encoder, lessons, config, math.inf) else 0
    # The model at the end, those of ``keep``, and the best one so far.
    models = (1 + len(config.keep) + bool(config.patience)) * weights
    # Memory: weights, gradients and two moments of what learns, and first weights of what learns of the speech model.
    memory = 4 * (weights + 3 * learned + (learned - heads)) + kept
    # Disk: two states, while one replaces the other, each of what learns and its two moments.
    disk = frames + 4 * (responses + 2 * 3 * learned + models)
    return Cost(encoder.device, clips, updates, seconds * updates * config.accumulate, memory, disk)


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
