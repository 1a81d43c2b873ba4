"""The projection to voxels and its loss in one: predictions, residuals and gradients of one tile of voxels after another.

    pooled (b, d) ─► weight (v, d) ─► predictions of a tile (b, w) ─► loss, and the gradients by pooled, weight and bias

Nothing of size b × v is allocated. The gradients are made in the forward pass, where a tile's predictions are at hand; the
backward pass multiplies them by the gradient that comes in. A kind of loss says what one tile contributes. Some need sums over
all voxels first: they walk over the tiles twice.

Missing responses (NaN) do not count. ``voxel_weight`` weights voxels, for example by their noise ceiling. Sums are float32, or
float64 for float64 inputs.

Legend: b = rows of the batch, d = width of the model, v = voxels, w = voxels of a tile.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from fastencode.errors import InputError

__all__ = ["LossKind", "voxel_loss"]

LossKind = Literal["mse", "spatial_r", "temporal_r", "cosine_mse"]
# Numbers of a tile of predictions: about the second-level cache in float32.
_TILE_VALUES = 2**18
_FEWEST = 64
# Below this share of its mean square, the variance of a series is rounding: it counts as constant, and its correlation is 0.
_CONSTANT = 1e-12


def voxel_loss(
    pooled: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    responses: Tensor,
    *,
    kind: LossKind = "mse",
    voxel_weight: Tensor | None = None,
    tile: int | None = None,
) -> Tensor:
    """Loss of the predictions ``pooled @ weight.T + bias``, a scalar that backpropagates to all three.

    Parameters
    ----------
    pooled : (b, d) floating tensor
    weight : (v, d) tensor
    bias : (v,) tensor, optional
    responses : (b, v) tensor
        NaN where a response is missing.
    kind : {"mse", "spatial_r", "temporal_r", "cosine_mse"}
        "mse": mean of squared differences. "spatial_r": 1 − Pearson correlation over voxels, mean over rows. "temporal_r": 1 −
        Pearson correlation over the rows of the batch, mean over voxels. "cosine_mse": 1 − cosine over voxels, mean over rows,
        plus "mse". Correlations and cosines of constant (zero) series are 0. Means are over what has a response.
    voxel_weight : (v,) tensor, optional
        Weights of voxels, not negative: in means over voxels, and in the correlations over voxels.
    tile : int, optional
        Voxels that are computed at once. None: as many as fit the processor's cache.

    Returns
    -------
    scalar tensor
        float32, or float64 for float64 inputs. 0 where nothing has a response.

    Raises
    ------
    InputError
        If shapes do not fit, or the kind is unknown.
    """
    kinds = {"mse": _SquaredError, "spatial_r": _OverVoxels, "temporal_r": _Temporal, "cosine_mse": _CosineAndSquaredError}
    if kind not in kinds:
        raise InputError(f"kind={kind!r}: choose among {', '.join(get_args(LossKind))}")
    (b, d), (v, _) = pooled.shape, weight.shape
    if weight.shape[1] != d or responses.shape != (b, v):
        shapes = f"pooled {tuple(pooled.shape)}, weight {tuple(weight.shape)}, responses {tuple(responses.shape)}"
        raise InputError(f"{shapes}: expected (b, d), (v, d) and (b, v)")
    for name, one in (("bias", bias), ("voxel_weight", voxel_weight)):
        if one is not None and one.shape != (v,):
            raise InputError(f"{name} has shape {tuple(one.shape)} for {v} voxels: give one number for each")
    if tile is not None and tile < 1:
        raise InputError(f"tile={tile}: give the number of voxels that are computed at once, 1 or more")
    width = max(_FEWEST, _TILE_VALUES // max(1, b)) if tile is None else tile
    return _VoxelLoss.apply(pooled, weight, bias, responses, voxel_weight, kinds[kind], width)


class _Tile(NamedTuple):
    """Some voxels: predictions, responses with 0 where they are missing, and the weight of each of these (0 where missing)."""

    here: slice
    predicted: Tensor
    target: Tensor
    weight: Tensor


class _Problem:
    """The arguments of one call, and the walk over its tiles. Sums have the dtype ``dtype``."""

    def __init__(
        self, pooled: Tensor, weight: Tensor, bias: Tensor | None, responses: Tensor, voxel_weight: Tensor | None
    ) -> None:
        self.pooled, self.weight, self.bias, self.responses, self.voxel_weight = pooled, weight, bias, responses, voxel_weight
        self.dtype = torch.promote_types(torch.float32, torch.promote_types(pooled.dtype, responses.dtype))

    def tiles(self, width: int) -> Iterator[_Tile]:
        """Every tile in turn. Products are those of the inputs' dtype."""
        for start in range(0, len(self.weight), width):
            here = slice(start, start + width)
            predicted = torch.matmul(self.pooled, self.weight[here].T.to(self.pooled.dtype)).to(self.dtype)
            if self.bias is not None:
                predicted += self.bias[here]
            target = self.responses[:, here].to(self.dtype)
            present = ~torch.isnan(target)
            weight = present.to(self.dtype)
            if self.voxel_weight is not None:
                weight *= self.voxel_weight[here].to(self.dtype)
            yield _Tile(here, predicted, torch.where(present, target, 0.0), weight)


class _Kind(ABC):
    """One loss: its value is ``total`` / ``count``, and its gradient by a tile's predictions ``gradient`` / ``count``."""

    def __init__(self, problem: _Problem) -> None:
        self.dtype, self.device, self.b = problem.dtype, problem.pooled.device, len(problem.pooled)
        self.total, self.count = self.zeros(), self.zeros()

    def zeros(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=self.dtype, device=self.device)

    def prepare(self, problem: _Problem, width: int) -> None:  # noqa: B027 (only some losses need it)
        """Walk over all tiles first, where the loss needs sums over all voxels."""

    @abstractmethod
    def gradient(self, tile: _Tile) -> Tensor:
        """(b, w): the gradient times ``count``, which may be known at the end only; adds the tile to ``total`` and ``count``."""


class _SquaredError(_Kind):
    """Σ m (p − y)² / Σ m, m the weights."""

    def gradient(self, tile: _Tile) -> Tensor:
        off = tile.predicted - tile.target
        weighted = off * tile.weight
        self.total += (weighted * off).sum()
        self.count += tile.weight.sum()
        return weighted.mul_(2.0)


class _Temporal(_Kind):
    """1 − r of each voxel over the rows that have a response; voxels without any do not count."""

    def gradient(self, tile: _Tile) -> Tensor:
        present = (tile.weight > 0).to(self.dtype)
        rows = present.sum(dim=0).clamp_(min=1.0)
        p, y = (self._centered(values, present, rows) for values in (tile.predicted, tile.target))
        voxel = tile.weight.amax(dim=0)  # the voxel's own weight, 0 where no row has a response
        pp, yy, py = (p * p).sum(dim=0), (y * y).sum(dim=0), (p * y).sum(dim=0)
        r, by_p, by_y = _correlation(pp, yy, py, *((v * v * present).sum(dim=0) for v in (tile.predicted, tile.target)))
        self.total += (voxel * (1.0 - r)).sum()
        self.count += voxel.sum()
        return (p * by_p - y * by_y) * voxel

    @staticmethod
    def _centered(values: Tensor, present: Tensor, rows: Tensor) -> Tensor:
        return (values - (values * present).sum(dim=0) / rows) * present


class _OverVoxels(_Kind):
    """1 − correlation or cosine of each row over its voxels; rows without any response do not count."""

    center = True

    def __init__(self, problem: _Problem) -> None:
        super().__init__(problem)
        self.mass, self.mean_p, self.mean_y = (self.zeros(self.b, 1) for _ in range(3))
        self.pp, self.yy, self.py, self.raw_p, self.raw_y = (self.zeros(self.b, 1) for _ in range(5))

    def prepare(self, problem: _Problem, width: int) -> None:
        for tile in problem.tiles(width):
            self.add(tile)
        counts = (self.mass > 0).to(self.dtype)
        r, self.by_p, self.by_y = _correlation(self.pp, self.yy, self.py, self.raw_p, self.raw_y)
        self.by_p, self.by_y = self.by_p * counts, self.by_y * counts
        self.total, self.count = ((1.0 - r) * counts).sum(), counts.sum()

    def add(self, tile: _Tile) -> None:
        """Sums about each tile's own means, joined pair by pair (Chan, Golub and LeVeque 1983): no digit is lost to a mean."""
        m = tile.weight
        mass = m.sum(dim=1, keepdim=True)
        safe = mass.clamp(min=torch.finfo(self.dtype).tiny)
        means = [(m * v).sum(dim=1, keepdim=True) / safe if self.center else self.zeros(self.b, 1) for v in tile[1:3]]
        p, y = tile.predicted - means[0], tile.target - means[1]
        joint = self.mass + mass
        share = self.mass * mass / joint.clamp(min=torch.finfo(self.dtype).tiny)
        off_p, off_y = means[0] - self.mean_p, means[1] - self.mean_y
        self.pp += (m * p * p).sum(dim=1, keepdim=True) + off_p * off_p * share
        self.yy += (m * y * y).sum(dim=1, keepdim=True) + off_y * off_y * share
        self.py += (m * p * y).sum(dim=1, keepdim=True) + off_p * off_y * share
        self.raw_p += (m * tile.predicted**2).sum(dim=1, keepdim=True)
        self.raw_y += (m * tile.target**2).sum(dim=1, keepdim=True)
        new = mass / joint.clamp(min=torch.finfo(self.dtype).tiny)
        self.mean_p, self.mean_y, self.mass = self.mean_p + off_p * new, self.mean_y + off_y * new, joint

    def gradient(self, tile: _Tile) -> Tensor:
        p, y = tile.predicted - self.mean_p, tile.target - self.mean_y
        return (p * self.by_p - y * self.by_y) * tile.weight


class _Cosine(_OverVoxels):
    center = False


class _CosineAndSquaredError(_Cosine):
    """The sum of both. Their counts differ, so both are scaled to a count of 1."""

    def __init__(self, problem: _Problem) -> None:
        super().__init__(problem)
        self.squared = _SquaredError(problem)

    def prepare(self, problem: _Problem, width: int) -> None:
        super().prepare(problem, width)
        tiny = torch.finfo(self.dtype).tiny
        self.rows, self.responses = self.count.clamp(min=1.0), self.mass.sum().clamp(min=tiny)
        self.total, self.count = self.total / self.rows, torch.ones_like(self.total)

    def gradient(self, tile: _Tile) -> Tensor:
        before = self.squared.total.clone()
        squared = self.squared.gradient(tile) / self.responses
        self.total = self.total + (self.squared.total - before) / self.responses
        return super().gradient(tile) / self.rows + squared


def _correlation(pp: Tensor, yy: Tensor, py: Tensor, raw_p: Tensor, raw_y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(r, a, c) with r = py / √(pp yy), and a p − c y the gradient of −r by p; 0 where one side is constant."""
    varies = (pp > _CONSTANT * raw_p) & (yy > _CONSTANT * raw_y)
    pp, yy = torch.where(varies, pp, 1.0), torch.where(varies, yy, 1.0)
    scale = torch.where(varies, (pp * yy).rsqrt(), 0.0)
    r = py * scale
    return r, r / pp, scale


class _Gradients(NamedTuple):
    """Of the sum ``count * loss``, by the arguments that want one."""

    pooled: Tensor | None
    weight: Tensor | None
    bias: Tensor | None


def _walk(loss: _Kind, problem: _Problem, wanted: tuple[bool, bool, bool], width: int) -> _Gradients:
    """All tiles in turn: adds them to the loss, and makes the gradients."""
    pooled, weight, bias = problem.pooled, problem.weight, problem.bias
    loss.prepare(problem, width)
    made = _Gradients(
        torch.zeros_like(pooled, dtype=problem.dtype) if wanted[0] else None,
        torch.empty_like(weight) if wanted[1] else None,
        torch.empty_like(bias) if wanted[2] and bias is not None else None,
    )
    for tile in problem.tiles(width):
        by_tile = loss.gradient(tile)
        if made.bias is not None:
            made.bias[tile.here] = by_tile.sum(dim=0)
        by_tile = by_tile.to(pooled.dtype)
        if made.pooled is not None:
            made.pooled.add_(torch.matmul(by_tile, weight[tile.here].to(pooled.dtype)))
        if made.weight is not None:
            made.weight[tile.here] = torch.matmul(by_tile.T, pooled)
    loss.count = torch.where(loss.count > 0, loss.count, 1.0)
    return made


class _VoxelLoss(torch.autograd.Function):
    """The gradients are kept until the backward pass, which scales them in place and gives them away: no copy of the weight's is
    made. A second backward pass walks again."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        *tensors, kind, width = arguments
        problem = _Problem(*tensors)
        loss = kind(problem)
        ctx.gradients = _walk(loss, problem, ctx.needs_input_grad[:3], width)
        ctx.kind, ctx.width, ctx.count = kind, width, loss.count
        ctx.save_for_backward(*tensors)
        return loss.total / loss.count

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            problem = _Problem(*ctx.saved_tensors)
            gradients = _walk(ctx.kind(problem), problem, ctx.needs_input_grad[:3], ctx.width)
        scale = outer / ctx.count
        scaled = [None if one is None else one.mul_(scale) for one in gradients]
        if scaled[0] is not None:
            scaled[0] = scaled[0].to(ctx.saved_tensors[0].dtype)
        return (*scaled, None, None, None, None)
