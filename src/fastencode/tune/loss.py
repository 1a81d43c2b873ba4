"""The projection to voxels and its loss in one: predictions, residuals and gradients of one tile of voxels after another.

    pooled (b, d) ─► weight (v, d) ─► predictions of a tile (w, b) ─► loss, and the gradients by pooled, weight and bias

Nothing of size b × v is allocated. The gradients are made in the forward pass, where a tile's predictions are at hand. They are
final, as the denominator of the mean is counted before and the factor of the loss is given before; the backward pass hands them
out. A kind of loss says what one tile contributes. Some need sums over all voxels first: they walk twice.

Missing responses (NaN) do not count. ``voxel_weight`` weights voxels, for example by their noise ceiling. Sums are float32, or
float64 for float64 inputs. Products have the dtype that ``torch.nn.Linear`` would use, float32 where that is a half precision
that this processor does not multiply.

Legend: b = rows of the batch, d = width of the model, v = voxels, w = voxels of a tile.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from fastencode.errors import InputError
from fastencode.tune.head_step import HeadStep
from fastencode.tune.voxel_tiles import Problem, Tile, Tiles, complete, product_dtype, slices

__all__ = ["LossKind", "voxel_count", "voxel_loss"]

LossKind = Literal["mse", "spatial_r", "temporal_r", "cosine_mse"]
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
    scale: float = 1.0,
    step: HeadStep | None = None,
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
    scale : float
        What the result will be multiplied by before the backward pass, for example the share of one of several losses. It does
        not change the result. Another factor is right too, at the cost of one more pass over the gradient of the weights.
    step : HeadStep, optional
        Updates ``weight`` and ``bias`` during this call, by the gradients of ``scale`` times the loss. Their gradients are never
        stored, and ``.grad`` stays as it is. The loss backpropagates to ``pooled`` only, and only with the factor ``scale``.
    tile : int, optional
        Voxels that are computed at once. None: as many as fit the processor's cache.

    Returns
    -------
    scalar tensor
        float32, or float64 for float64 inputs. 0 where nothing has a response.

    Raises
    ------
    InputError
        If shapes do not fit, the kind is unknown, the scale is negative or not finite, the step is for other parameters, or
        gradients are off (``torch.no_grad``) where there is a step. From the backward pass of a loss with a step: if the loss was
        multiplied by anything but ``scale``.
    """
    _check_kind(kind)
    fit = pooled.ndim == weight.ndim == 2 and pooled.shape[1] == weight.shape[1]
    if not fit or responses.shape != (len(pooled), len(weight)):
        shapes = f"pooled {tuple(pooled.shape)}, weight {tuple(weight.shape)}, responses {tuple(responses.shape)}"
        raise InputError(f"{shapes}: expected (b, d), (v, d) and (b, v)")
    if bias is not None:
        _check_length("bias", bias, len(weight))
    if tile is not None and tile < 1:
        raise InputError(f"tile={tile}: give the number of voxels that are computed at once, 1 or more")
    if voxel_weight is not None:
        _check_length("voxel_weight", voxel_weight, len(weight))
    if not (math.isfinite(scale) and scale >= 0.0):
        raise InputError(f"scale={scale}: give the finite number, 0 or more, by which the loss will be multiplied")
    if step is not None:
        step.check(weight, bias)
    elif scale == 0.0:
        scale = 1.0  # the gradients could not be multiplied afterwards
    wanted = tuple(one is not None and one.requires_grad and torch.is_grad_enabled() for one in (pooled, weight, bias))
    call = _Call(kind, scale, step, tile, wanted, product_dtype(pooled))
    return _VoxelLoss.apply(pooled, weight, bias, responses, voxel_weight, call)


def voxel_count(responses: Tensor, voxel_weight: Tensor | None = None, kind: LossKind = "mse") -> Tensor:
    """The denominator of the mean that a loss is: what a batch weighs beside others.

    The loss of several batches joined is Σ count × loss / Σ count, for "cosine_mse" where no response is missing, for
    "temporal_r" not at all, since its correlations are over the rows of one batch.

    Parameters
    ----------
    responses : (b, v) tensor
        NaN where a response is missing.
    voxel_weight : (v,) tensor, optional
    kind : {"mse", "spatial_r", "temporal_r", "cosine_mse"}

    Returns
    -------
    scalar tensor
        "mse": number of responses, each times its voxel's weight. "spatial_r", "cosine_mse": rows with any response of a voxel
        that has a weight. "temporal_r": voxels with any response, each times its weight. float64, or float32 where a device has
        no other.

    Raises
    ------
    InputError
        If shapes do not fit, or the kind is unknown.
    """
    _check_kind(kind)
    if responses.ndim != 2:
        raise InputError(f"responses {tuple(responses.shape)}: expected (b, v)")
    if voxel_weight is not None:
        _check_length("voxel_weight", voxel_weight, responses.shape[1])
    b, v = responses.shape
    return _count(responses, voxel_weight, kind, None if complete(responses) else slices(v, 8 * b, responses.device))


def _count(responses: Tensor, voxel_weight: Tensor | None, kind: LossKind, looked_at: Iterable[slice] | None) -> Tensor:
    """As ``voxel_count``, with the voxels that are looked at in turn. None: no response is missing."""
    (b, v), exact = responses.shape, torch.float32 if responses.device.type == "mps" else torch.float64
    weights = torch.ones(v, dtype=exact, device=responses.device) if voxel_weight is None else voxel_weight.detach().to(exact)
    if looked_at is None:
        mass, voxels = weights.sum().expand(b), torch.full_like(weights, float(b))
    else:
        mass, voxels = torch.zeros(b, dtype=exact, device=responses.device), torch.zeros_like(weights)
        for here in looked_at:
            present = responses[:, here].isnan().logical_not_().to(exact)
            voxels[here] = present.sum(dim=0)
            mass += present @ weights[here]
    if kind == "mse":
        return voxels @ weights
    return (mass > 0).sum().to(exact) if kind in ("spatial_r", "cosine_mse") else (voxels > 0).to(exact) @ weights


def _check_kind(kind: str) -> None:
    if kind not in get_args(LossKind):
        raise InputError(f"kind={kind!r}: choose from {', '.join(get_args(LossKind))}")


def _check_length(name: str, values: Tensor, voxels: int) -> None:
    if values.shape != (voxels,):
        raise InputError(f"{name} has shape {tuple(values.shape)} for {voxels} voxels: give one number for each")


class _Kind(ABC):
    """One loss: its value is ``total`` / ``count``; its gradient by predictions is ``factor`` / ``count`` times ``gradient``."""

    factor = 1.0
    walks_twice = False

    def __init__(self, tiles: Tiles, count: Tensor) -> None:
        self.count, self.dtype, self.device = count, tiles.dtype, count.device
        self.total = self.zeros()

    def zeros(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=self.dtype, device=self.device)

    def prepare(self, tiles: Tiles) -> None:  # noqa: B027 (only some losses need it)
        """The first walk of a loss that walks twice, as it needs sums over all voxels. Sets ``total``."""

    @abstractmethod
    def gradient(self, tile: Tile) -> Tensor:
        """(w, b), 0 where responses are missing. Adds the tile to ``total``, unless the loss walks twice."""


class _SquaredError(_Kind):
    """Σ m (p − y)² / Σ m, m the weights."""

    factor = 2.0

    def gradient(self, tile: Tile) -> Tensor:
        off = tile.residual()
        squares = torch.linalg.vector_norm(off, dim=1).square_()
        if tile.voxel_weight is not None:
            squares *= tile.voxel_weight[:, 0]
            off *= tile.voxel_weight
        self.total += squares.sum()
        return off


class _Temporal(_Kind):
    """1 − r of each voxel over the rows that have a response; voxels without any do not count."""

    def gradient(self, tile: Tile) -> Tensor:
        p, y = tile.predicted(), tile.target()
        raw_p, raw_y = (torch.linalg.vector_norm(one, dim=1, keepdim=True).square_() for one in (p, y))
        if tile.missing is None:
            voxel = torch.ones_like(raw_p) if len(p[0]) else torch.zeros_like(raw_p)
            for one in (p, y):
                one -= one.mean(dim=1, keepdim=True)
        else:
            rows = tile.missing.logical_not().sum(dim=1, keepdim=True)
            voxel = (rows > 0).to(self.dtype)
            for one in (p, y):
                one -= one.sum(dim=1, keepdim=True) / rows.clamp(min=1)
                one.masked_fill_(tile.missing, 0.0)
        if tile.voxel_weight is not None:
            voxel = voxel * tile.voxel_weight
        pp, yy = (torch.linalg.vector_norm(one, dim=1, keepdim=True).square_() for one in (p, y))
        r, by_p, by_y = _correlation(pp, yy, (p * y).sum(dim=1, keepdim=True), raw_p, raw_y)
        self.total += (voxel * (1.0 - r)).sum()
        return p.mul_(by_p * voxel).sub_(y.mul_(by_y * voxel))


class _Spatial(_Kind):
    """1 − correlation of each row over its voxels; rows without any response do not count."""

    walks_twice = True
    center = True

    def __init__(self, tiles: Tiles, count: Tensor) -> None:
        super().__init__(tiles, count)
        b = len(tiles.pooled)
        self.mass, self.mean_p, self.mean_y, self.pp, self.yy, self.py = (self.zeros(b) for _ in range(6))

    def prepare(self, tiles: Tiles) -> None:
        for tile in tiles:
            self.add(tile, tile.predicted(), tile.target())
        raw_p, raw_y = self.pp + self.mass * self.mean_p**2, self.yy + self.mass * self.mean_y**2
        r, by_p, by_y = _correlation(self.pp, self.yy, self.py, raw_p, raw_y)
        counts = (self.mass > 0).to(self.dtype)
        self.by_p, self.by_y, self.total = by_p * counts, by_y * counts, ((1.0 - r) * counts).sum()

    def add(self, tile: Tile, p: Tensor, y: Tensor) -> None:
        """Sums about each tile's own means, joined pair by pair (Chan, Golub and LeVeque 1983): no digit is lost to a mean."""
        tiny = torch.finfo(self.dtype).tiny
        mass = torch.full_like(self.mass, tile.width) if tile.mass is None else tile.mass.expand_as(p).sum(dim=0)
        joint, off_p, off_y = (self.mass + mass).clamp(min=tiny), self.zeros(), self.zeros()
        if self.center:
            mean_p, mean_y = (tile.weighed(one).sum(dim=0) / mass.clamp(min=tiny) for one in (p, y))
            p, y, off_p, off_y = p.sub_(mean_p), y.sub_(mean_y), mean_p - self.mean_p, mean_y - self.mean_y
        share, weighed = self.mass * mass / joint, tile.weighed(p)
        self.pp += (weighed * p).sum(dim=0) + off_p * off_p * share
        self.py += (weighed * y).sum(dim=0) + off_p * off_y * share
        self.yy += (tile.weighed(y) * y).sum(dim=0) + off_y * off_y * share
        self.mean_p, self.mean_y = self.mean_p + off_p * mass / joint, self.mean_y + off_y * mass / joint
        self.mass = self.mass + mass

    def gradient(self, tile: Tile) -> Tensor:
        p, y = tile.predicted(), tile.target()
        if self.center:
            p, y = p.sub_(self.mean_p), y.sub_(self.mean_y)
        return tile.weighed(p.mul_(self.by_p).sub_(y.mul_(self.by_y)))


class _CosineAndSquaredError(_Spatial):
    """1 − cosine of each row, plus the squared error times what makes the number of rows the denominator of both."""

    center = False

    def __init__(self, tiles: Tiles, count: Tensor) -> None:
        super().__init__(tiles, count)
        self.squares = self.zeros()

    def add(self, tile: Tile, p: Tensor, y: Tensor) -> None:
        off = p - y
        self.squares += (tile.weighed(off) * off).sum()
        super().add(tile, p, y)

    def prepare(self, tiles: Tiles) -> None:
        super().prepare(tiles)
        rows = self.count / self.mass.sum().clamp(min=torch.finfo(self.dtype).tiny)
        self.total = self.total + rows * self.squares
        self.by_p, self.by_y = self.by_p + 2.0 * rows.to(self.dtype), self.by_y + 2.0 * rows.to(self.dtype)


_KINDS: dict[LossKind, Callable[[Tiles, Tensor], _Kind]] = {
    "mse": _SquaredError,
    "spatial_r": _Spatial,
    "temporal_r": _Temporal,
    "cosine_mse": _CosineAndSquaredError,
}


def _correlation(pp: Tensor, yy: Tensor, py: Tensor, raw_p: Tensor, raw_y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(r, a, c) with r = py / √(pp yy), and a p − c y the gradient of −r by p; 0 where one side is constant."""
    varies = (pp > _CONSTANT * raw_p) & (yy > _CONSTANT * raw_y)
    pp, yy = torch.where(varies, pp, 1.0), torch.where(varies, yy, 1.0)
    scale = torch.where(varies, (pp * yy).rsqrt(), 0.0)
    r = py * scale
    return r, r / pp, scale


class _Gradients:
    """What the walk makes of the gradient by predictions: gradients of the arguments that want one, times ``factor``.

    The factor multiplies the small pooled states, not the large gradient of the weights.
    """

    def __init__(self, tiles: Tiles, wanted: tuple[bool, ...], factor: Tensor, step: HeadStep | None) -> None:
        problem, self.tiles, self.wanted, self.factor, self.step = tiles.problem, tiles, wanted, factor.to(tiles.dtype), step
        self.direct = problem.weight.dtype == tiles.product_dtype == tiles.dtype
        self.scaled = tiles.pooled * self.factor if self.direct else tiles.pooled
        self.pooled = torch.zeros_like(problem.pooled, dtype=tiles.dtype) if wanted[0] else None
        self.weight = torch.empty_like(problem.weight) if wanted[1] and step is None else None
        self.bias = torch.empty_like(problem.bias) if problem.bias is not None and wanted[2] and step is None else None
        self.ones = torch.ones(len(tiles.pooled), dtype=tiles.dtype, device=tiles.pooled.device)

    def add(self, tile: Tile, by_tile: Tensor) -> None:
        """Add a tile, whose gradient by predictions is ``by_tile`` (w, b); applies the step to its voxels."""
        product, made = by_tile.to(self.tiles.product_dtype), []
        if self.pooled is not None:
            if self.pooled.dtype == product.dtype:
                self.pooled.addmm_(product.T, tile.weight)
            else:
                self.pooled += torch.mm(product.T, tile.weight)
        if self.wanted[1]:
            made.append(self._by_weight(tile, product))
        if self.wanted[2]:
            by_bias = torch.mv(by_tile, self.ones) * self.factor
            made.append(by_bias if self.bias is None else self.bias[tile.here].copy_(by_bias))
        if self.step is not None:
            self.step.apply(tile.here, made)

    def _by_weight(self, tile: Tile, product: Tensor) -> Tensor:
        """by_tile @ pooled × factor, (w, d): in its place in the whole gradient, or in memory that the next tile overwrites."""
        like = self.tiles.problem.weight
        if self.weight is None:
            out = self.tiles.room("by weight", tile.width, like.shape[1], like.dtype)
        else:
            out = self.weight[tile.here]
        if self.direct:
            return torch.mm(product, self.scaled, out=out)
        return out.copy_(torch.mm(product, self.scaled).to(self.tiles.dtype).mul_(self.factor))

    def all(self) -> tuple[Tensor | None, ...]:
        """The gradients by pooled, weight and bias, once all tiles were added; None of what wants none, or was stepped."""
        if self.pooled is not None:
            self.pooled = self.pooled.mul_(self.factor).to(self.tiles.problem.pooled.dtype)
        return self.pooled, self.weight, self.bias


class _Call(NamedTuple):
    """All of one call but its tensors."""

    kind: LossKind
    scale: float
    step: HeadStep | None
    tile: int | None
    wanted: tuple[bool, ...]
    product_dtype: torch.dtype

    def walk(self, problem: Problem) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        """The loss, and the gradients of ``scale`` times the loss; applies the step."""
        with torch.autocast(problem.pooled.device.type, enabled=False):
            tiles = Tiles(problem, self.product_dtype, self.tile)
            looked_at = None if tiles.no_missing else tiles.slices
            count = _count(problem.responses, problem.voxel_weight, self.kind, looked_at)
            loss = _KINDS[self.kind](tiles, count)
            loss.prepare(tiles)
            share = 1.0 / torch.where(count > 0, count, 1.0)
            gradients = _Gradients(tiles, self.wanted, loss.factor * self.scale * share, self.step)
            if self.step is not None:
                self.step.advance()
            for tile in tiles if any(self.wanted) or not loss.walks_twice else ():
                gradients.add(tile, loss.gradient(tile))
            return (loss.total * share).to(problem.dtype), gradients.all()


class _VoxelLoss(torch.autograd.Function):
    """The gradients are kept until the backward pass, which gives them away: no copy of the weight's is made. A second backward
    pass walks again. After a step it cannot, as the weights have changed, and need not: the gradient that is kept is small."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        *tensors, ctx.call = arguments
        loss, ctx.gradients = ctx.call.walk(Problem(*tensors))
        ctx.save_for_backward(*([] if ctx.call.step else tensors))
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        call, nothing = ctx.call, (None, None, None)
        if call.step is not None:
            if not math.isclose(float(outer), call.scale, rel_tol=1e-5):
                found = f"the loss was multiplied by {float(outer):g}, after a step of the head for scale={call.scale:g}"
                raise InputError(f"{found}: give voxel_loss the factor that comes as scale")
            return (ctx.gradients[0], None, None, *nothing)
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            _, gradients = call.walk(Problem(*ctx.saved_tensors))
        if outer.device.type != "cpu" or float(outer) != float(torch.tensor(call.scale, dtype=outer.dtype)):
            gradients = tuple(one if one is None else one.mul_(outer / call.scale) for one in gradients)
        return (*gradients, *nothing)
