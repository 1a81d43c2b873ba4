"""The projection to voxels and its loss in one: predictions, residuals and gradients of one tile of voxels after another.

    pooled (b, d) ─► weight (v, d) ─► predictions of a tile (w, b) ─► loss, and the gradients by pooled, weight and bias

Nothing of size b × v is allocated. The gradients are made in the forward pass, where a tile's predictions are at hand. The
denominator of the mean is counted before, so they are final: the backward pass hands them out, and multiplies them only where the
loss was multiplied. A kind of loss says what one tile contributes. Some need sums over all voxels first: they walk twice.

Missing responses (NaN) do not count. ``voxel_weight`` weights voxels, for example by their noise ceiling. Sums are float32, or
float64 for float64 inputs. Products have the dtype that ``torch.nn.Linear`` would use, float32 where that is a half precision
that this processor does not multiply.

Tiles are stored with one row for each voxel: MKL multiplies those 10 to 30 % faster than tiles with one row for each clip.

Legend: b = rows of the batch, d = width of the model, v = voxels, w = voxels of a tile.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from fastencode.errors import InputError
from fastencode.tune.head_step import HeadStep

__all__ = ["LossKind", "voxel_count", "voxel_loss"]

LossKind = Literal["mse", "spatial_r", "temporal_r", "cosine_mse"]
# Numbers of a tile's weights, or predictions if those are more: 8 MB in float32, which a third-level cache holds. Devices take more
# at once, so that few kernels are launched.
_TILE_VALUES = {"cpu": 2**21}
_TILE_VALUES_OF_DEVICES = 2**25
_FEWEST = 64
# From this number of rows on, half precision products win back the time that it takes to convert a tile's weights.
_HALF_PAYS = 32
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
        The loss and its gradients are multiplied by it: a share of several losses, or 1 / (micro-batches of an update). Multiplying
        the result instead gives the same, with one more pass over the gradient of the weights.
    step : HeadStep, optional
        Updates ``weight`` and ``bias`` during this call; their gradients are never stored, and ``.grad`` stays as it is. The loss
        then backpropagates to ``pooled`` only. As the update is over before the backward pass begins, that must start from this
        loss, or from a sum of losses that has it with factor 1: every factor belongs into ``scale``.
    tile : int, optional
        Voxels that are computed at once. None: as many as fit the processor's cache.

    Returns
    -------
    scalar tensor
        float32, or float64 for float64 inputs. 0 where nothing has a response.

    Raises
    ------
    InputError
        If shapes do not fit, the kind is unknown, or the step is for other parameters, or none is wanted (``torch.no_grad``).
        From the backward pass: if the loss of a step was multiplied by anything but 1.
    """
    kinds = {"mse": _SquaredError, "spatial_r": _Spatial, "temporal_r": _Temporal, "cosine_mse": _CosineAndSquaredError}
    _check_kind(kind)
    if (
        pooled.ndim != 2
        or weight.ndim != 2
        or weight.shape[1] != pooled.shape[1]
        or responses.shape != (len(pooled), len(weight))
    ):
        shapes = f"pooled {tuple(pooled.shape)}, weight {tuple(weight.shape)}, responses {tuple(responses.shape)}"
        raise InputError(f"{shapes}: expected (b, d), (v, d) and (b, v)")
    if bias is not None:
        _check_length("bias", bias, len(weight))
    if tile is not None and tile < 1:
        raise InputError(f"tile={tile}: give the number of voxels that are computed at once, 1 or more")
    if step is not None:
        step.check(weight, bias, scale)
    count = voxel_count(responses, voxel_weight, kind)
    return _VoxelLoss.apply(pooled, weight, bias, responses, voxel_weight, kinds[kind], count, scale, step, tile)


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
        "mse": number of responses, each times its voxel's weight. "spatial_r", "cosine_mse": rows with any response of a voxel that
        has a weight. "temporal_r": voxels with any response, each times its weight. float64, or float32 where a device has no other.

    Raises
    ------
    InputError
        If shapes do not fit, or the kind is unknown.
    """
    _check_kind(kind)
    if responses.ndim != 2:
        raise InputError(f"responses {tuple(responses.shape)}: expected (b, v)")
    (b, v), exact = responses.shape, torch.float32 if responses.device.type == "mps" else torch.float64
    if voxel_weight is not None:
        _check_length("voxel_weight", voxel_weight, v)
    weights = torch.ones(v, dtype=exact, device=responses.device) if voxel_weight is None else voxel_weight.detach().to(exact)
    if _complete(responses):
        mass, voxels = weights.sum().expand(b), torch.full_like(weights, float(b))
    else:
        mass, voxels = torch.zeros(b, dtype=exact, device=responses.device), torch.zeros_like(weights)
        for here in _slices(v, b, responses.device):
            present = responses[:, here].isnan().logical_not_().to(exact)
            voxels[here] = present.sum(dim=0)
            mass += present @ weights[here]
    if kind == "mse":
        return voxels @ weights
    return (mass > 0).sum().to(exact) if kind in ("spatial_r", "cosine_mse") else (voxels > 0).to(exact) @ weights


def _complete(responses: Tensor) -> bool:
    """Whether no response is missing. The sum needs no copy; infinities of both signs make it NaN too, which costs time only."""
    return not bool(responses.sum().isnan())


def _slices(voxels: int, row: int, device: torch.device, tile: int | None = None) -> Iterator[slice]:
    """All voxels in slices of ``tile``, or of as many as have about ``_TILE_VALUES`` numbers where each has ``row``."""
    width = tile or max(_FEWEST, _TILE_VALUES.get(device.type, _TILE_VALUES_OF_DEVICES) // max(1, row))
    return (slice(start, min(start + width, voxels)) for start in range(0, voxels, width))


def _check_kind(kind: str) -> None:
    if kind not in get_args(LossKind):
        raise InputError(f"kind={kind!r}: choose among {', '.join(get_args(LossKind))}")


def _check_length(name: str, values: Tensor, voxels: int) -> None:
    if values.shape != (voxels,):
        raise InputError(f"{name} has shape {tuple(values.shape)} for {voxels} voxels: give one number for each")


class _Problem(NamedTuple):
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

    @property
    def product_dtype(self) -> torch.dtype:
        """Of products: what ``torch.nn.Linear`` would use, but float32 for halves where they would be slower."""
        device = self.pooled.device.type
        usual = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.pooled.dtype
        if device != "cpu" or usual.itemsize > 2:
            return usual
        supported = getattr(torch.ops.mkldnn, f"_is_mkldnn_{'bf16' if usual == torch.bfloat16 else 'fp16'}_supported")()
        return usual if supported and len(self.pooled) >= _HALF_PAYS else torch.float32


class _Tiles:
    """The walk over tiles, and the memory that all tiles share."""

    def __init__(self, problem: _Problem, width: int | None) -> None:
        self.problem, self.dtype, self.product_dtype = problem, problem.dtype, problem.product_dtype
        self.pooled = problem.pooled.to(self.product_dtype)
        self.complete = _complete(problem.responses)
        (v, d), b = problem.weight.shape, len(problem.pooled)
        self.slices = list(_slices(v, max(b, d), problem.weight.device, width))
        self._kept: dict[str, Tensor] = {}

    def __iter__(self) -> Iterator[_Tile]:
        return (_Tile(self, here) for here in self.slices)

    def room(self, name: str, width: int, columns: int, dtype: torch.dtype) -> Tensor:
        """(width, columns): the same memory for every tile. New memory for each would cost a page fault for every 4 kB of it."""
        if name not in self._kept:
            widest = self.slices[0].stop - self.slices[0].start
            self._kept[name] = torch.empty(widest, columns, dtype=dtype, device=self.pooled.device)
        return self._kept[name][:width]


class _Tile:
    """Some voxels. Tensors are (w, b), one row for each voxel, and are overwritten by the next tile."""

    def __init__(self, tiles: _Tiles, here: slice) -> None:
        self.tiles, self.here, self.width = tiles, here, here.stop - here.start

    @cached_property
    def weight(self) -> Tensor:
        """(w, d): of the head, as it is multiplied."""
        return self.tiles.problem.weight[self.here].to(self.tiles.product_dtype)

    @cached_property
    def missing(self) -> Tensor | None:
        """Where there is no response. None: nowhere."""
        return None if self.tiles.complete else self.tiles.problem.responses[:, self.here].T.isnan()

    @cached_property
    def voxel_weight(self) -> Tensor | None:
        """(w, 1)"""
        one = self.tiles.problem.voxel_weight
        return None if one is None else one[self.here, None].to(self.tiles.dtype)

    @cached_property
    def mass(self) -> Tensor:
        """The weight of each response, 0 where it is missing: (w, b), or what broadcasts to it."""
        voxel = self.voxel_weight
        if self.missing is None:
            return torch.ones(1, 1, dtype=self.tiles.dtype, device=self.tiles.pooled.device) if voxel is None else voxel
        present = self.missing.logical_not().to(self.tiles.dtype)
        return present if voxel is None else present.mul_(voxel)

    @property
    def bias(self) -> Tensor:
        """(w, 1)"""
        one = self.tiles.problem.bias
        return torch.zeros(1, 1, dtype=self.tiles.dtype) if one is None else one[self.here, None].to(self.tiles.dtype)

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


class _Kind(ABC):
    """One loss: its value is ``total`` / ``count``; its gradient by predictions is ``factor`` / ``count`` times ``gradient``."""

    factor = 1.0

    def __init__(self, tiles: _Tiles, count: Tensor) -> None:
        self.count, self.dtype, self.device = count, tiles.dtype, count.device
        self.total = self.zeros()

    def zeros(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=self.dtype, device=self.device)

    def prepare(self, tiles: _Tiles) -> None:  # noqa: B027 (only some losses need it)
        """Walk over all tiles first, where the loss needs sums over all voxels."""

    @abstractmethod
    def gradient(self, tile: _Tile) -> Tensor:
        """(w, b), 0 where responses are missing; may add the tile to ``total``."""


class _SquaredError(_Kind):
    """Σ m (p − y)² / Σ m, m the weights."""

    factor = 2.0

    def gradient(self, tile: _Tile) -> Tensor:
        off = tile.residual()
        squares = torch.linalg.vector_norm(off, dim=1).square_()
        if tile.voxel_weight is not None:
            squares *= tile.voxel_weight[:, 0]
            off *= tile.voxel_weight
        self.total += squares.sum()
        return off


class _Temporal(_Kind):
    """1 − r of each voxel over the rows that have a response; voxels without any do not count."""

    def gradient(self, tile: _Tile) -> Tensor:
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

    center = True

    def __init__(self, tiles: _Tiles, count: Tensor) -> None:
        super().__init__(tiles, count)
        b = len(tiles.pooled)
        self.mass, self.mean_p, self.mean_y = (self.zeros(b) for _ in range(3))
        self.pp, self.yy, self.py, self.raw_p, self.raw_y = (self.zeros(b) for _ in range(5))

    def prepare(self, tiles: _Tiles) -> None:
        for tile in tiles:
            self.add(tile, tile.predicted(), tile.target())
        counts = (self.mass > 0).to(self.dtype)
        r, self.by_p, self.by_y = _correlation(self.pp, self.yy, self.py, self.raw_p, self.raw_y)
        self.by_p, self.by_y = self.by_p * counts, self.by_y * counts
        self.total = ((1.0 - r) * counts).sum()

    def add(self, tile: _Tile, p: Tensor, y: Tensor) -> None:
        """Sums about each tile's own means, joined pair by pair (Chan, Golub and LeVeque 1983): no digit is lost to a mean."""
        m, tiny = tile.mass, torch.finfo(self.dtype).tiny
        mass = m.expand_as(p).sum(dim=0)
        self.raw_p += (m * p).mul_(p).sum(dim=0)
        self.raw_y += (m * y).mul_(y).sum(dim=0)
        safe, joint = mass.clamp(min=tiny), (self.mass + mass).clamp(min=tiny)
        mean_p, mean_y = ((m * one).sum(dim=0) / safe if self.center else self.zeros(len(mass)) for one in (p, y))
        p, y = p.sub_(mean_p), y.sub_(mean_y)
        share, off_p, off_y = self.mass * mass / joint, mean_p - self.mean_p, mean_y - self.mean_y
        mp = m * p
        self.pp += (mp * p).sum(dim=0) + off_p * off_p * share
        self.py += mp.mul_(y).sum(dim=0) + off_p * off_y * share
        self.yy += (m * y).mul_(y).sum(dim=0) + off_y * off_y * share
        self.mean_p, self.mean_y = self.mean_p + off_p * mass / joint, self.mean_y + off_y * mass / joint
        self.mass = self.mass + mass

    def gradient(self, tile: _Tile) -> Tensor:
        p, y = tile.predicted(), tile.target()
        if self.center:
            p, y = p.sub_(self.mean_p), y.sub_(self.mean_y)
        return p.mul_(self.by_p).sub_(y.mul_(self.by_y)).mul_(tile.mass)


class _CosineAndSquaredError(_Spatial):
    """1 − cosine of each row, plus the squared error times what makes the number of rows the denominator of both."""

    center = False

    def __init__(self, tiles: _Tiles, count: Tensor) -> None:
        super().__init__(tiles, count)
        self.squares = self.zeros()

    def add(self, tile: _Tile, p: Tensor, y: Tensor) -> None:
        off = p - y
        self.squares += (tile.mass * off).mul_(off).sum()
        super().add(tile, p, y)

    def prepare(self, tiles: _Tiles) -> None:
        super().prepare(tiles)
        rows = self.count / self.mass.sum().clamp(min=torch.finfo(self.dtype).tiny)
        self.total = self.total + rows * self.squares
        self.by_p, self.by_y = self.by_p + 2.0 * rows.to(self.dtype), self.by_y + 2.0 * rows.to(self.dtype)


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

    def __init__(self, tiles: _Tiles, wanted: tuple[bool, ...], factor: Tensor, step: HeadStep | None) -> None:
        problem, self.tiles, self.factor, self.step = tiles.problem, tiles, factor.to(tiles.dtype), step
        wants_weight, wants_bias = wanted[1], wanted[2] and problem.bias is not None
        self.direct = problem.weight.dtype == tiles.product_dtype
        self.scaled = tiles.pooled * self.factor.to(tiles.product_dtype) if self.direct else tiles.pooled
        self.wants = wanted[0], wants_weight, wants_bias
        self.pooled = torch.zeros_like(problem.pooled, dtype=tiles.dtype) if wanted[0] else None
        self.weight = torch.empty_like(problem.weight) if wants_weight and step is None else None
        self.bias = torch.empty_like(problem.bias) if wants_bias and step is None else None
        self.ones = torch.ones(len(tiles.pooled), dtype=tiles.dtype, device=tiles.pooled.device)

    def add(self, tile: _Tile, by_tile: Tensor) -> None:
        product, made = by_tile.to(self.tiles.product_dtype), []
        if self.pooled is not None:
            if self.pooled.dtype == product.dtype:
                self.pooled.addmm_(product.T, tile.weight)
            else:
                self.pooled += torch.mm(product.T, tile.weight)
        if self.wants[1]:
            made.append(self._by_weight(tile, product))
        if self.wants[2]:
            by_bias = torch.mv(by_tile, self.ones) * self.factor
            made.append(by_bias if self.bias is None else self.bias[tile.here].copy_(by_bias))
        if self.step is not None:
            self.step.apply(tile.here, made)

    def _by_weight(self, tile: _Tile, product: Tensor) -> Tensor:
        like = self.tiles.problem.weight
        out = (
            self.tiles.room("by weight", tile.width, like.shape[1], like.dtype) if self.weight is None else self.weight[tile.here]
        )
        if self.direct:
            return torch.mm(product, self.scaled, out=out)
        return out.copy_(torch.mm(product, self.scaled).to(self.tiles.dtype).mul_(self.factor))

    def all(self) -> tuple[Tensor | None, ...]:
        if self.pooled is not None:
            self.pooled = self.pooled.mul_(self.factor).to(self.tiles.problem.pooled.dtype)
        return self.pooled, self.weight, self.bias


def _walk(ctx: Any, problem: _Problem, step: HeadStep | None) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    """The loss and the gradients."""
    with torch.autocast(problem.pooled.device.type, enabled=False):
        tiles = _Tiles(problem, ctx.tile)
        loss = ctx.kind(tiles, ctx.count)
        loss.prepare(tiles)
        factor = ctx.scale / torch.where(ctx.count > 0, ctx.count, 1.0)
        wanted = ctx.needs_input_grad[:3]
        gradients = _Gradients(tiles, wanted, loss.factor * factor, step)
        if step is not None:
            step.advance()
        for tile in tiles:
            by_tile = loss.gradient(tile)
            if any(wanted):
                gradients.add(tile, by_tile)
        return (loss.total * factor).to(problem.dtype), gradients.all()


class _VoxelLoss(torch.autograd.Function):
    """The gradients are kept until the backward pass, which gives them away: no copy of the weight's is made. A second backward
    pass walks again, where no step has changed the weights."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        ctx.kind, ctx.count, ctx.scale, ctx.step, ctx.tile = arguments[5:]
        loss, ctx.gradients = _walk(ctx, _Problem(*arguments[:5]), ctx.step)
        ctx.stepped = ctx.step is not None
        ctx.save_for_backward(*([] if ctx.stepped else arguments[:5]))
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        nothing = (None,) * 7
        if ctx.stepped:
            if float(outer) != 1.0:
                raise InputError(f"the loss was multiplied by {float(outer):g} after its step: give voxel_loss that as scale")
            return (ctx.gradients[0], None, None, *nothing)
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            _, gradients = _walk(ctx, _Problem(*ctx.saved_tensors), None)
        if outer.device.type != "cpu" or float(outer) != 1.0:
            gradients = tuple(one if one is None else one.mul_(outer) for one in gradients)
        return (*gradients, *nothing)
