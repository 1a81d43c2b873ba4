"""Brain-tuning: one loop, read from top to bottom.

The model stays in evaluation mode (no dropout, as in the published runs); only the transformer layers and the head get
gradients; the CNN's output was computed once, which is exact because it never changes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from fastencode.errors import FastencodeError, InputError
from fastencode.progress import progress
from fastencode.speech.layers import SpeechEncoder
from fastencode.tune.config import TuneConfig
from fastencode.tune.model import BrainModel

__all__ = ["Epoch", "Examples", "brain_tune"]


@dataclass(frozen=True)
class Examples:
    """Clips with the responses that followed them: frames (rows, f, c) and responses (rows, v), both float32."""

    frames: np.ndarray
    responses: np.ndarray

    def __post_init__(self) -> None:
        if not len(self.frames):
            raise InputError("there are no clips: give at least one response row")
        if len(self.frames) != len(self.responses):
            raise InputError(f"{len(self.frames)} clips but {len(self.responses)} response rows: they must pair up")
        if not np.isfinite(self.responses).all():
            raise InputError("responses hold NaN or infinity: leave those voxels out")

    @classmethod
    def join(cls, parts: list[Examples]) -> Examples:
        """One after the other."""
        return cls(np.concatenate([p.frames for p in parts]), np.concatenate([p.responses for p in parts]))


@dataclass(frozen=True)
class Epoch:
    """What one pass did: mean training loss, loss and mean correlation over voxels on the validation examples, time."""

    epoch: int
    updates: int
    train_loss: float
    validation_loss: float
    validation_r: float
    seconds: float


def brain_tune(
    encoder: SpeechEncoder,
    train: Examples,
    validation: Examples,
    config: TuneConfig,
    folder: Path,
    *,
    desc: str = "tuning",
    show_progress: bool = True,
) -> list[Epoch]:
    """Tune an encoder on responses with an L2 loss and save it.

    Parameters
    ----------
    encoder : SpeechEncoder
        Tuned in place.
    train, validation : Examples
        The validation examples are only looked at. Responses should be z-scored per run.
    config : TuneConfig
    folder : Path
        An existing folder; gets the Hugging Face checkpoint and ``head.safetensors`` (weight (v, d), bias (v,)).
    desc : str
        What the progress bar says.

    Returns
    -------
    list of Epoch
        The first entry is the state before any update.

    Raises
    ------
    FastencodeError
        If the loss stops being finite, or the frozen CNN changed.
    """
    torch.manual_seed(config.seed)
    order = np.random.default_rng([config.seed, 11])
    model = BrainModel(encoder, train.responses.shape[1])
    frozen = encoder.cnn_hash()
    optimizer = torch.optim.AdamW(
        model.parameter_groups(config.learning_rate, config.head_learning_rate),
        weight_decay=config.weight_decay,
        fused=True,  # one pass instead of several for each of many small tensors
    )
    n_updates = config.epochs * -(-len(train.frames) // config.batch)
    warm_up = max(1, n_updates // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm_up, (n_updates - step) / max(1, n_updates - warm_up))
    )
    history = [_epoch(model, validation, 0, 0, float("nan"), 0.0, config.batch)]
    with progress(total=config.epochs * len(train.frames), desc=desc, unit="clip", enabled=show_progress) as bar:
        for epoch in range(1, config.epochs + 1):
            start, losses, shuffled = time.perf_counter(), [], order.permutation(len(train.frames))
            for first in range(0, len(shuffled), config.batch):
                rows = shuffled[first : first + config.batch]
                predicted = model(torch.from_numpy(train.frames[rows]))
                loss = nn.functional.mse_loss(predicted, torch.from_numpy(train.responses[rows]))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()
                losses.append(loss.item())
                bar.update(len(rows))
            if not np.isfinite(losses).all():
                raise FastencodeError(
                    f"{desc}: the loss is not finite in epoch {epoch}: lower learning_rate ({config.learning_rate:g})"
                )
            updates = history[-1].updates + len(losses)
            history.append(
                _epoch(model, validation, epoch, updates, float(np.mean(losses)), time.perf_counter() - start, config.batch)
            )
            bar.set_postfix(loss=f"{history[-1].train_loss:.3f}", validation_r=f"{history[-1].validation_r:.3f}")
    if encoder.cnn_hash() != frozen:
        raise FastencodeError(f"{desc}: the frozen CNN changed while tuning; nothing was saved")
    encoder.save(folder)
    save_file({name: value.contiguous() for name, value in model.head.state_dict().items()}, folder / "head.safetensors")
    return history


def _epoch(model: BrainModel, validation: Examples, epoch: int, updates: int, loss: float, seconds: float, batch: int) -> Epoch:
    predicted = _predict(model, validation.frames, batch)
    return Epoch(
        epoch=epoch,
        updates=updates,
        train_loss=loss,
        validation_loss=float(np.mean((predicted - validation.responses) ** 2)),
        validation_r=float(np.mean(_correlation(predicted, validation.responses))),
        seconds=seconds,
    )


@torch.inference_mode()
def _predict(model: BrainModel, frames: np.ndarray, batch: int) -> np.ndarray:
    parts = [model(torch.from_numpy(frames[i : i + batch])).numpy() for i in range(0, len(frames), batch)]
    return np.concatenate(parts)


def _correlation(a_tv: np.ndarray, b_tv: np.ndarray) -> np.ndarray:
    """Pearson per voxel, 0 where one side is constant, as :func:`fastencode.pearson`.

    ``tune`` does not borrow that one: finished models are keyed by the code that their stage imports, and every change of the
    solvers would tune them again.
    """
    a_tv, b_tv = a_tv - a_tv.mean(axis=0), b_tv - b_tv.mean(axis=0)
    scale = np.sqrt((a_tv**2).sum(axis=0) * (b_tv**2).sum(axis=0))
    return np.divide((a_tv * b_tv).sum(axis=0), scale, out=np.zeros_like(scale), where=scale > 0)
