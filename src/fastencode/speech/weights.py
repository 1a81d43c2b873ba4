"""How far the weights of two checkpoints of one architecture are apart, layer by layer."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Any

from fastencode.errors import InputError
from fastencode.speech.layers import SpeechEncoder

__all__ = ["layer_name", "weight_change"]


def layer_name(number: int) -> str:
    """What a layer is called, here and in the log of a tuning run: ``layer-03``."""
    return f"layer-{number:02d}"


def weight_change(before: str | os.PathLike[str], after: str | os.PathLike[str]) -> dict[str, float]:
    """``‖after − before‖ / ‖before‖`` of the parameters of each part of a speech encoder, Frobenius norms.

    Parameters
    ----------
    before, after : path or str
        Hugging Face folders, or names on the hub, of one architecture: a pretrained model and what tuning made of it. Adapters
        count as merged.

    Returns
    -------
    dict of str to float
        ``cnn``, the convolutions below the transformer; ``layer-00``, what makes the transformer's input of their frames;
        ``layer-01``, its first block, and so on; ``norm``, a LayerNorm after the last block. Parts without parameters are left
        out: Whisper's ``layer-00``, ``norm`` of base models. ``inf`` where a part was 0 and is not.

    Raises
    ------
    InputError
        If a model cannot be read, or the two differ in architecture or size; the message names the first parameter that does.
    MissingLibraryError
        If torch or transformers is not installed (extra ``tune``).
    """
    first, second = SpeechEncoder(str(before)), SpeechEncoder(str(after))
    others = dict(_parameters(second))
    squares: dict[str, list[float]] = {}
    names = dict(_parameters(first))
    if odd := sorted(names.keys() ^ others.keys()):
        raise InputError(f"{before} and {after} are models of two kinds, only one has {odd[0][1]}: compare two of one")
    for (where, name), value in names.items():
        other = others[where, name]
        if value.shape != other.shape:
            raise InputError(
                f"{name} is {tuple(value.shape)} in {before} and {tuple(other.shape)} in {after}: compare equal models"
            )
        sums = squares.setdefault(where, [0.0, 0.0])
        sums[0] += float((other.double() - value.double()).square().sum())
        sums[1] += float(value.double().square().sum())
    return {where: _ratio(*squares[where]) for where in sorted(squares)}


def _parameters(encoder: SpeechEncoder) -> Iterator[tuple[tuple[str, str], Any]]:
    """((part, name), parameter) of an encoder, without gradients."""
    last = encoder.n_layers
    parts = [("cnn", module) for module in encoder.stem]
    parts += [("norm" if number == last else layer_name(number), module) for number, module in encoder.parts()]
    for place, (where, module) in enumerate(parts):
        for name, value in module.named_parameters():
            yield (where, f"{where}, module {place}, {name}"), value.detach()


def _ratio(change: float, size: float) -> float:
    if size == 0:
        return 0.0 if change == 0 else math.inf
    return math.sqrt(change / size)
