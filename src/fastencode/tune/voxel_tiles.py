"""Tiles of voxels: what is predicted there, and what was measured. One after another, in the same memory.

Tiles are stored with one row for each voxel: MKL multiplies those 10 to 30 % faster than tiles with one row for each clip.

Legend: b = rows of the batch, d = width of the model, v = voxels, w = voxels of a tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Problem", "Tile", "Tiles", "complete", "product_dtype", "slices"]

# Numbers of a tile's weights, or of its predictions if those are more: 8 MB in float32, which a third-level cache holds. Devices
# take more at once, so that few kernels are launched.
_TILE_VALUES, _TILE_VALUES_OF_DEVICES = 2**21, 2**25
_FEWEST = 64
# From this number of rows on, products of halves win back the time that it takes to convert a tile's weights.
_HALF_PAYS = 32


def slices(voxels: int, row: int, device: torch.device, tile: int | None = None) -> Iterator[slice]:
    """All voxels in slices of ``tile``, or of as many as have about ``_TILE_VALUES`` numbers where each has ``row``."""
    values = _TILE_VALUES if device.type == "cpu" else _TILE_VALUES_OF_DEVICES
    width = tile or max(_FEWEST, values // max(1, row))
    return (slice(start, min(start + width, voxels)) for start in range(0, voxels, width))


def complete(responses: Tensor) -> bool:
    """Whether no response is missing. The sum needs no copy; infinities of both signs make it NaN too, which costs time only."""
    return not bool(responses.sum().isnan())


class Problem(NamedTuple):
    """The arguments of one call."""

    pooled: Tensor
    weight: Tensor
    bias: Tensor | None
    responses: Tensor
    voxel_weight: Tensor | None

    @property
    def dtype(self) -> torch.dtype:
        """Of sums."""
        return torch.promote_types(torch.float32, torch.promote_types(self.pooled.dtype, self.responses.dtype))


def product_dtype(pooled: Tensor) -> torch.dtype:
    """Of products: what ``torch.nn.Linear`` would use here, but float32 for halves that a processor multiplies no faster."""
    device, usual = pooled.device.type, pooled.dtype
    if torch.is_autocast_enabled(device) and usual != torch.float64:
        usual = torch.get_autocast_dtype(device)
    if device != "cpu" or usual.itemsize > 2 or (len(pooled) >= _HALF_PAYS and _multiplies(usual)):
        return usual
    return torch.float32


def _multiplies(half: torch.dtype) -> bool:
    """Whether this processor has instructions for products of halves."""
    if not torch.backends.mkldnn.is_available():
        return False
    return bool(getattr(torch.ops.mkldnn, f"_is_mkldnn_{'bf16' if half == torch.bfloat16 else 'fp16'}_supported")())


class Tiles:
    """The walk over tiles, and the memory that all tiles share."""

    def __init__(self, problem: Problem, product_dtype: torch.dtype, width: int | None) -> None:
        self.problem, self.dtype, self.product_dtype = problem, problem.dtype, product_dtype
        self.pooled = problem.pooled.to(self.product_dtype)
        self.no_missing = complete(problem.responses)
        (v, d), b = problem.weight.shape, len(problem.pooled)
        self.slices = list(slices(v, max(b, d), problem.weight.device, width))
        self._kept: dict[str, Tensor] = {}

    def __iter__(self) -> Iterator[Tile]:
        return (Tile(self, here) for here in self.slices)

    def room(self, name: str, width: int, columns: int, dtype: torch.dtype) -> Tensor:
        """(width, columns): the same memory for every tile. New memory for each would cost a page fault for every 4 kB of it."""
        if name not in self._kept:
            widest = self.slices[0].stop - self.slices[0].start
            self._kept[name] = torch.empty(widest, columns, dtype=dtype, device=self.pooled.device)
        return self._kept[name][:width]


class Tile:
    """Some voxels. Tensors are (w, b), one row for each voxel, and are overwritten by the next tile."""

    def __init__(self, tiles: Tiles, here: slice) -> None:
        self.tiles, self.here, self.width = tiles, here, here.stop - here.start

    @cached_property
    def weight(self) -> Tensor:
        """(w, d): of the head, as it is multiplied."""
        return self.tiles.problem.weight[self.here].to(self.tiles.product_dtype)

    @cached_property
    def missing(self) -> Tensor | None:
        """Where there is no response. None: nowhere."""
        return None if self.tiles.no_missing else self.tiles.problem.responses[:, self.here].T.isnan()

    @cached_property
    def voxel_weight(self) -> Tensor | None:
        """(w, 1)"""
        one = self.tiles.problem.voxel_weight
        return None if one is None else one[self.here, None].to(self.tiles.dtype)

    @cached_property
    def mass(self) -> Tensor | None:
        """The weight of each response, 0 where it is missing: (w, b), or (w, 1) if none is. None: 1 everywhere."""
        if self.missing is None:
            return self.voxel_weight
        present = self.missing.logical_not().to(self.tiles.dtype)
        return present if self.voxel_weight is None else present.mul_(self.voxel_weight)

    def weighed(self, values: Tensor) -> Tensor:
        """``values`` (w, b) times the weight of each response. May be ``values`` itself."""
        return values if self.mass is None else values * self.mass

    @cached_property
    def bias(self) -> Tensor:
        """(w, 1), or one 0."""
        one = self.tiles.problem.bias
        return (
            torch.zeros(1, 1, dtype=self.tiles.dtype, device=self.tiles.pooled.device)
            if one is None
            else one[self.here, None].to(self.tiles.dtype)
        )

    def residual(self) -> Tensor:
        """pooled @ weight.T + bias − responses, 0 where they are missing."""
        responses = self.tiles.problem.responses[:, self.here].T.to(self.tiles.dtype)
        return self._filled(self._plus_products(torch.sub(self.bias, responses, out=self._room("predicted"))))

    def predicted(self) -> Tensor:
        """pooled @ weight.T + bias, 0 where the response is missing."""
        return self._filled(self._plus_products(self._room("predicted").copy_(self.bias)))

    def target(self) -> Tensor:
        """The responses, 0 where they are missing."""
        return self._filled(self._room("target").copy_(self.tiles.problem.responses[:, self.here].T))

    def _room(self, name: str) -> Tensor:
        return self.tiles.room(name, self.width, len(self.tiles.pooled), self.tiles.dtype)

    def _plus_products(self, values: Tensor) -> Tensor:
        """``values`` + pooled @ weight.T, in place."""
        tiles = self.tiles
        if tiles.product_dtype == tiles.dtype:
            return torch.addmm(values, self.weight, tiles.pooled.T, out=values)
        return values.add_(torch.mm(self.weight, tiles.pooled.T))

    def _filled(self, values: Tensor) -> Tensor:
        return values if self.missing is None else values.masked_fill_(self.missing, 0.0)
