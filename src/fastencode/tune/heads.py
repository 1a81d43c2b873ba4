"""Between the speech model and voxels: linear heads, and what they read where Lanczos and FIR delays stand inside the graph.

    frames of each clip's last TR ─► bins ─► Lanczos to scans ─► z-score ─► delayed copies ─► head

Axis letters: b clip of a batch, one a scan; f frame, m bin of a clip, o bin of all clips, t scan, d width, k input of a head,
v voxel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fastencode.errors import InputError
from fastencode.speech.config import ReadConfig
from fastencode.speech.windows import kept_frames
from fastencode.timing.lanczos import lanczos
from fastencode.tune.seeds import seed_of_weights

__all__ = ["LOBES", "LinearHead", "Rows", "delayed", "scan_rows"]

LOBES = 3
"""Lobes of the Lanczos kernel, as many as the alignment has by default: a scan is made of sound up to 3 TRs from its middle."""


@dataclass(frozen=True)
class Rows:
    """Where the clips of a batch lie in their story.

    Attributes
    ----------
    ends : ndarray, shape (b,), float64
        When each clip ends, in s: consecutive scans of one story.
    keep : slice
        The clips whose responses are predicted. Those before and after them lend their sound, see ``BrainModel.halo``.
    """

    ends: NDArray[np.float64]
    keep: slice


class LinearHead(nn.Module):
    """A linear map to voxels, after a narrower one where there is a bottleneck.

    Parameters
    ----------
    width : int
        Dimensions of the state, d.
    n_voxels : int
    bottleneck : int
        Width of the layer between, 0 for none. There is no nonlinearity: it bounds the rank of the map.
    seed, name : int, str
        Decide the weights: those of ``nn.Linear`` in distribution, uniform in ±1/√inputs. Torch's own generator is not used.

    Attributes
    ----------
    weight, bias : nn.Parameter, shapes (v, k) and (v,)
    bottleneck : nn.Linear or None
    """

    def __init__(self, width: int, n_voxels: int, bottleneck: int, seed: int, name: str) -> None:
        super().__init__()
        self._made_of = width, n_voxels, bottleneck, seed, name
        generator = torch.Generator().manual_seed(seed_of_weights(seed, name))
        self.bottleneck = nn.utils.skip_init(nn.Linear, width, bottleneck) if bottleneck else None
        if self.bottleneck is not None:
            _draw([self.bottleneck.weight, self.bottleneck.bias], width, generator)
        inputs = bottleneck or width
        self.weight = nn.Parameter(torch.empty(n_voxels, inputs))
        self.bias = nn.Parameter(torch.empty(n_voxels))
        _draw([self.weight, self.bias], inputs, generator)

    def as_begun(self) -> LinearHead:
        """Another head with the weights that this one began with: they follow from the seed and the name."""
        return LinearHead(*self._made_of).to(self.weight.device)

    def reduce(self, state_rd: torch.Tensor) -> torch.Tensor:
        """What ``weight`` is multiplied with: (r, d) → (r, k)."""
        return state_rd if self.bottleneck is None else self.bottleneck(state_rd)

    def forward(self, state_rd: torch.Tensor) -> torch.Tensor:
        """(r, d) → responses (r, v)."""
        return nn.functional.linear(self.reduce(state_rd), self.weight, self.bias)


def _draw(parameters: Sequence[nn.Parameter], inputs: int, generator: torch.Generator) -> None:
    """Uniform in ±1/√inputs, as ``nn.Linear`` has it."""
    bound = 1 / math.sqrt(inputs)
    with torch.no_grad():
        for parameter in parameters:
            parameter.uniform_(-bound, bound, generator=generator)


def scan_rows(
    hidden_bfd: torch.Tensor, frame_times: NDArray[np.float64], seconds: float, ends: NDArray[np.float64], tr: float
) -> torch.Tensor:
    """The frames of consecutive clips at the middles of their scans, as the alignment has them of ``pool="newest"``.

    Parameters
    ----------
    hidden_bfd : tensor, shape (b, f, d), float32
        A layer of clips; frames beyond the sound are not read.
    frame_times : ndarray, shape (f,)
        The middles of the frames that carry sound, in s from the start of a clip.
    seconds : float
        Length of a clip.
    ends : ndarray, shape (b,)
        When each clip, and its scan, ends; in s.
    tr : float
        Seconds from scan to scan.

    Returns
    -------
    tensor, shape (b, d)
        Bins of at most .5 s of each clip's last TR, resampled with a Lanczos kernel of 3 lobes; where the clips before the first
        or after the last three are missing, less of it is summed up. Backpropagates to the frames.

    Raises
    ------
    InputError
        If the ends are not one TR apart, not one for each clip, or a bin holds no frame.
    """
    if len(ends) != len(hidden_bfd):
        raise InputError(f"{len(hidden_bfd)} clips but {len(ends)} ends: give the end of each clip")
    if not np.allclose(np.diff(ends), tr, rtol=0, atol=1e-3 * tr):
        raise InputError(f"clips end at {', '.join(f'{end:g}' for end in ends[:5])} … s: give consecutive scans, {tr:g} s apart")
    bins, since = kept_frames(frame_times, seconds, ReadConfig("clip", tr=tr, seconds=seconds, pool="newest"))
    binned_bmd = torch.stack([hidden_bfd[:, part].mean(dim=1) for part in bins], dim=1)
    middles = np.append(ends, ends[-1] + tr) - tr / 2  # one more: the step between scans follows from two
    old_o = (np.asarray(ends)[:, None] + since).ravel()
    weights_to = lanczos(np.eye(len(old_o)), old_o, middles, lobes=LOBES)[:-1]
    return torch.from_numpy(weights_to).to(binned_bmd) @ binned_bmd.flatten(0, 1)


def _standardized(rows_td: torch.Tensor) -> torch.Tensor:
    """Each column to mean 0 and standard deviation 1 (ddof 0) over the rows; constant columns to 0."""
    centered = rows_td - rows_td.mean(dim=0)
    variance_d = centered.square().mean(dim=0)
    varies_d = variance_d > (1e-6 * rows_td.detach().abs().amax(dim=0)) ** 2
    return centered * torch.where(varies_d, torch.where(varies_d, variance_d, 1).rsqrt(), 0)


def delayed(rows_td: torch.Tensor, delays: Sequence[int], keep: slice) -> torch.Tensor:
    """Kept rows as the delayed copies of z-scored rows, (t, d) → (r, d · delays).

    The z-score is over the kept rows and the ``max(delays)`` rows before them, which is what they read. Columns are those of
    :func:`fastencode.delay`: all of the first delay, then all of the next. Rows before the first are 0.
    """
    first, stop, _ = keep.indices(len(rows_td))
    longest = max(delays)
    read = rows_td[max(0, first - longest) : stop]
    padded = nn.functional.pad(_standardized(read), (0, 0, max(0, longest - first), 0))
    count = stop - first
    return torch.cat([padded[longest - delay : longest - delay + count] for delay in delays], dim=1)
