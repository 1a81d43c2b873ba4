"""The tiled loss against the plain one, its gradients by finite differences, and what it never allocates."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fastencode.errors import InputError
from fastencode.tune import voxel_tiles
from fastencode.tune.head_step import HeadStep
from fastencode.tune.loss import voxel_count, voxel_loss
from pairs import pairs

SHAPES = [(1, 3, 70), (16, 8, 1), (16, 8, 64), (16, 8, 65), (33, 5, 130)]
KINDS = ("mse", "spatial_r", "temporal_r", "cosine_mse")


def correlation(p, y, m):
    """Weighted, of vectors; 0 where one is constant."""
    p, y = (v - (m * v).sum() / m.sum() for v in (p, y))
    return cosine(p, y, m)


def cosine(p, y, m):
    pp, yy = (m * p * p).sum(), (m * y * y).sum()
    return (m * p * y).sum() / (pp * yy).sqrt() if pp > 1e-9 and yy > 1e-9 else (0 * p).sum()


def plain(pooled, weight, bias, responses, kind, voxel_weight):
    """As the definition reads, one row or voxel at a time."""
    predicted = nn.functional.linear(pooled, weight, bias)
    present = ~responses.isnan()
    y = torch.where(present, responses, 0.0)
    w = torch.ones(len(weight), dtype=pooled.dtype) if voxel_weight is None else voxel_weight
    m = present * w
    mse = (m * (predicted - y) ** 2).sum() / m.sum() if m.sum() > 0 else (0 * predicted).sum()
    if kind == "mse":
        return mse
    if kind == "temporal_r":
        some = [v for v in range(len(weight)) if present[:, v].any() and w[v] > 0]
        each = [w[v] * (1 - correlation(predicted[:, v], y[:, v], present[:, v].to(pooled.dtype))) for v in some]
        return sum(each) / w[some].sum() if some else (0 * predicted).sum()
    rows = [b for b in range(len(pooled)) if m[b].sum() > 0]
    alike = cosine if kind == "cosine_mse" else correlation
    one = sum(1 - alike(predicted[b], y[b], m[b]) for b in rows) / len(rows) if rows else (0 * predicted).sum()
    return one + mse if kind == "cosine_mse" else one


def problem(b, d, v, *, missing=0.2, weighted=True, bias=True, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    responses = normal(b, v) + 2.0
    responses[torch.rand(b, v, generator=generator) < missing] = float("nan")
    if missing and v > 2:
        responses[:, 1] = float("nan")
    made = [normal(b, d), normal(v, d) / d**0.5, normal(v) if bias else None]
    weights = torch.rand(v, generator=generator, dtype=torch.float64).to(dtype) if weighted else None
    if weights is not None and v > 4:
        weights[4] = 0.0
    return [one if one is None else one.requires_grad_() for one in made], responses, weights


@pytest.mark.parametrize(
    "kind, shape, missing, weighted, bias",
    pairs(KINDS, [(1, 3, 5), (6, 4, 1), (7, 3, 9), (5, 2, 17)], [0.0, 0.3], [False, True], [True, False]),
)
def test_gradients_by_finite_differences(kind, shape, missing, weighted, bias):
    given, responses, weights = problem(*shape, missing=missing, weighted=weighted, bias=bias)
    used = [one for one in given if one is not None]

    def loss(*some):
        return voxel_loss(*some, *([] if bias else [None]), responses, kind=kind, voxel_weight=weights, tile=4)

    assert torch.autograd.gradcheck(loss, used)


@pytest.mark.parametrize(
    "kind, shape, missing, weighted, dtype",
    pairs(KINDS, SHAPES, [0.0, 0.3], [False, True], [torch.float32, torch.float64]),
)
@pytest.mark.parametrize("tile", [64, None])
def test_the_plain_loss_and_its_gradients(kind, shape, missing, weighted, dtype, tile):
    given, responses, weights = problem(*shape, missing=missing, weighted=weighted, dtype=dtype)
    wanted = plain(*given, responses, kind, weights)
    exact = torch.autograd.grad(wanted, given)
    loss = voxel_loss(*given, responses, kind=kind, voxel_weight=weights, tile=tile)
    found = torch.autograd.grad(3.0 * loss, given)
    tolerance = 1e-6 if dtype == torch.float64 else 2e-6
    torch.testing.assert_close(loss, wanted, rtol=tolerance, atol=tolerance)
    for ours, theirs in zip(found, exact, strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, 3.0 * theirs, rtol=0, atol=float(3 * 5 * tolerance * max(theirs.abs().max(), 0.05)))


def functional(pooled, weight, bias, responses, kind):
    """As users write it, where nothing is missing or weighted."""
    predicted = F.linear(pooled, weight, bias)
    mse = F.mse_loss(predicted, responses)
    if kind == "mse":
        return mse
    if kind == "cosine_mse":
        return (1 - F.cosine_similarity(predicted, responses, dim=1)).mean() + mse
    axis = 1 if kind == "spatial_r" else 0
    p, y = (one - one.mean(dim=axis, keepdim=True) for one in (predicted, responses))
    return (1 - F.cosine_similarity(p, y, dim=axis)).mean()


@pytest.mark.parametrize("kind, shape, bias", pairs(KINDS, [*SHAPES, (5, 700, 129)], [True, False]))
def test_float32_is_as_near_to_float64_as_rounding_allows(kind, shape, bias):
    given, responses, _ = problem(*shape, missing=0.0, bias=bias, dtype=torch.float32)
    exact = [None if one is None else one.detach().double().requires_grad_() for one in given]
    wanted = functional(*exact, responses.double(), kind)
    loss = voxel_loss(*given, responses, kind=kind, tile=64)
    torch.testing.assert_close(loss.double(), wanted, rtol=1e-6, atol=0)
    used = [number for number in range(3) if given[number] is not None]
    theirs = torch.autograd.grad(wanted, [exact[number] for number in used])
    ours = torch.autograd.grad(loss, [given[number] for number in used])
    for number, found, other in zip(used, ours, theirs, strict=True):
        # A correlation over rows does not change with the bias: what is summed to 0 is as large as the gradient of the weights.
        largest = float(theirs[1].abs().max() if (kind, number) == ("temporal_r", 2) else other.abs().max())
        torch.testing.assert_close(found.double(), other, rtol=0, atol=max(1e-6 * largest, 1e-9))


@pytest.mark.parametrize("kind", KINDS)
def test_constant_series_and_nothing_at_all(kind):
    given, responses, _ = problem(6, 3, 8, missing=0.0)
    responses[:, 2], responses[3] = 5.0, -1.0
    with torch.no_grad():
        given[1][5] = 0.0  # constant predictions
        given[0][4] = given[0][4] * 0
    found = torch.autograd.grad(voxel_loss(*given, responses, kind=kind, tile=3), given)
    assert all(torch.isfinite(one).all() for one in found)
    torch.testing.assert_close(voxel_loss(*given, responses, kind=kind, tile=3), plain(*given, responses, kind, None))
    empty = voxel_loss(*given, torch.full_like(responses, float("nan")), kind=kind)
    assert empty == 0 and all((one == 0).all() for one in torch.autograd.grad(empty, given))


@pytest.mark.parametrize("kind", ["spatial_r", "temporal_r"])
@pytest.mark.parametrize("side", ["responses", "predictions"])
def test_what_rounding_leaves_of_a_constant_is_no_correlation(kind, side):
    given, responses, _ = problem(7, 3, 650, missing=0.0, dtype=torch.float32)
    if side == "responses":
        responses[:] = torch.linspace(0.1, 0.7, 7)[:, None] if kind == "spatial_r" else torch.linspace(0.1, 0.7, 650)
    else:
        with torch.no_grad():
            given[1].zero_()
            given[2].fill_(0.1)
    loss = voxel_loss(*given, responses, kind=kind, tile=50)
    assert loss == 1.0 and all((one == 0).all() for one in torch.autograd.grad(loss, given))


@pytest.mark.parametrize("kind", KINDS)
def test_large_means_lose_no_digits(kind):
    given, responses, _ = problem(12, 4, 90, missing=0.1, dtype=torch.float32)
    with torch.no_grad():
        given[2] += 300.0
    responses += 300.0
    exact = plain(*[one.double() for one in given], responses.double(), kind, None)
    torch.testing.assert_close(voxel_loss(*given, responses, kind=kind, tile=32).double(), exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_are_summed_in_float32(kind, dtype):
    given, responses, _ = problem(16, 8, 3000, missing=0.0, bias=False, dtype=torch.float32)
    half = [given[0].detach().to(dtype).requires_grad_(), given[1].detach().to(dtype).requires_grad_()]
    loss = voxel_loss(*half, None, responses, kind=kind)
    wanted = plain(*[one.detach().float() for one in half], None, responses, kind, None)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, wanted, rtol=5e-3, atol=5e-3)
    assert [one.dtype for one in torch.autograd.grad(loss, half)] == [dtype] * 2


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_multiplies_halves_and_sums_in_float32(kind, monkeypatch):
    monkeypatch.setattr(voxel_tiles, "multiplies", lambda half: True)
    given, responses, _ = problem(40, 8, 3000, missing=0.0, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = voxel_loss(*given, responses, kind=kind)
    half = [given[0].detach().bfloat16(), given[1].detach().bfloat16()]
    predicted = F.linear(*half).float() + given[2].detach()  # rounded once, as by nn.Linear
    identity = torch.eye(len(predicted)), predicted.T.contiguous(), None
    wanted = functional(*[one if one is None else one.double() for one in identity], responses.double(), kind)
    torch.testing.assert_close(loss.double(), wanted, rtol=2e-6, atol=0)
    exact = torch.autograd.grad(functional(*given, responses, kind), given)
    for ours, theirs in list(zip(torch.autograd.grad(loss, given), exact, strict=True))[: 2 if kind == "temporal_r" else 3]:
        assert ours.dtype == torch.float32
        assert 1e-6 < (ours - theirs).norm() / theirs.norm() < 2e-2


def test_halves_are_multiplied_only_where_that_is_faster(monkeypatch):
    half = torch.zeros(100, 3, dtype=torch.bfloat16)
    for can, rows, wanted in ((True, 100, torch.bfloat16), (True, 4, torch.float32), (False, 100, torch.float32)):
        monkeypatch.setattr(voxel_tiles, "multiplies", lambda half, can=can: can)
        assert voxel_tiles.product_dtype(half[:rows]) == wanted
        assert voxel_tiles.product_dtype(half[:rows].double()) == torch.float64
        with torch.autocast("cpu", torch.bfloat16):
            assert voxel_tiles.product_dtype(half[:rows].float()) == wanted
            assert voxel_tiles.product_dtype(half[:rows].double()) == torch.float64


@pytest.mark.parametrize("factor", [1.0, 0.3, 0.0])
@pytest.mark.parametrize("scale", [1.0, 0.3, 0.0])
def test_a_factor_that_is_known_before_and_one_that_is_not(scale, factor):
    given, responses, weights = problem(5, 3, 9)
    wanted = plain(*given, responses, "mse", weights)
    loss = voxel_loss(*given, responses, voxel_weight=weights, scale=scale, tile=4)
    torch.testing.assert_close(loss, wanted)
    exact = torch.autograd.grad(factor * wanted, given)
    for ours, theirs in zip(torch.autograd.grad(factor * loss, given), exact, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_second_backward_pass_walks_again():
    given, responses, _ = problem(5, 3, 9)
    loss = voxel_loss(*given, responses, tile=4)
    first = torch.autograd.grad(loss, given, retain_graph=True)
    kept = [one.clone() for one in first]
    second = torch.autograd.grad(2.0 * loss, given)
    for one, before, two in zip(first, kept, second, strict=True):
        torch.testing.assert_close(one, before)
        torch.testing.assert_close(two, 2.0 * before)


def test_only_what_needs_a_gradient_gets_one():
    (pooled, weight, bias), responses, _ = problem(5, 3, 9)
    loss = voxel_loss(pooled, weight.detach(), bias.detach(), responses)
    loss.backward()
    assert pooled.grad is not None
    assert not voxel_loss(pooled.detach(), weight.detach(), None, responses).requires_grad


class Largest(TorchDispatchMode):
    """Notes the bytes of the largest tensor that is made: results in memory of their own, of every operation, backward too."""

    bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        given = {one.untyped_storage().data_ptr() for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)}
        for one in tree_leaves(out):
            if isinstance(one, torch.Tensor) and one.untyped_storage().data_ptr() not in given:
                self.bytes = max(self.bytes, one.untyped_storage().nbytes())
        return out


@pytest.mark.parametrize("kind, missing, weighted", pairs(KINDS, [0.0, 0.1], [False, True]))
def test_nothing_of_the_size_of_all_predictions_is_made(kind, missing, weighted):
    b, d, v, tile = 64, 2, 4000, 100
    given, responses, weights = problem(b, d, v, missing=missing, weighted=weighted)
    with Largest() as seen:
        voxel_loss(*given, responses, kind=kind, voxel_weight=weights, tile=tile).backward()
    assert seen.bytes == 8 * v * d and 8 * b * tile < seen.bytes < 8 * b * v  # the gradient of the weights
    with Largest() as seen, torch.no_grad():
        voxel_loss(*given, responses, kind=kind, voxel_weight=weights, tile=tile)
    assert seen.bytes <= max(8 * b * tile, 8 * v)
    with Largest() as seen:
        plain(*given, responses, "mse", None)
    assert seen.bytes == 8 * b * v
    many = torch.full((b, 10**5), float("nan"), dtype=torch.float64)
    with Largest() as seen:
        voxel_count(many, None, kind)
    assert seen.bytes < 8 * b * 10**5


@pytest.mark.parametrize("kind", ["mse", "spatial_r"])
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_micro_batches_weighted_by_their_counts_are_the_joined_batch(kind, missing):
    (pooled, weight, bias), responses, weights = problem(11, 3, 9, missing=missing)
    if missing:
        responses[4] = float("nan")
    parts = [slice(0, 2), slice(2, 7), slice(7, 11)]
    counts = [voxel_count(responses[part], weights, kind) for part in parts]
    each = [voxel_loss(pooled[part], weight, bias, responses[part], kind=kind, voxel_weight=weights) for part in parts]
    joined = voxel_loss(pooled, weight, bias, responses, kind=kind, voxel_weight=weights)
    mean = sum(count * loss for count, loss in zip(counts, each, strict=True)) / sum(counts)
    torch.testing.assert_close(mean, joined)
    for one, other in zip(*(torch.autograd.grad(loss, (pooled, weight, bias)) for loss in (mean, joined)), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_counts(missing, weighted):
    _, responses, weights = problem(6, 3, 9, missing=missing, weighted=weighted)
    if missing:
        responses[2] = float("nan")
        responses[3, :4] = responses[3, 5:] = float("nan")
        responses[3, 4] = 1.0  # a voxel without weight, where there are weights
    present = (~responses.isnan()).double()
    m = present if weights is None else present * weights
    voxels = (present.sum(dim=0) > 0).double()
    for kind, wanted in (
        ("mse", m.sum()),
        ("spatial_r", (m.sum(dim=1) > 0).sum().double()),
        ("cosine_mse", (m.sum(dim=1) > 0).sum().double()),
        ("temporal_r", (voxels if weights is None else voxels * weights).sum()),
    ):
        torch.testing.assert_close(voxel_count(responses, weights, kind), wanted)


SETTINGS = dict(lr=0.02, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1)


@pytest.mark.parametrize("kind, with_bias, missing, scale", pairs(KINDS, [True, False], [0.0, 0.2], [1.0, 0.25]))
def test_the_step_is_that_of_the_separate_optimizer(kind, with_bias, missing, scale):
    (pooled, *separate), responses, weights = problem(12, 6, 130, missing=missing, bias=with_bias, dtype=torch.float32)
    separate = [one for one in separate if one is not None]
    fused = [one.detach().clone().requires_grad_() for one in separate]
    optimizer = torch.optim.AdamW(separate, **SETTINGS)
    step = HeadStep(fused, **SETTINGS)
    missing_bias = [] if with_bias else [None]
    for update in range(6):
        step.lr = optimizer.param_groups[0]["lr"] = 0.02 / (1 + update)
        before = [one.detach().clone() for one in fused]
        wanted = plain(pooled, *separate, *missing_bias, responses, kind, weights)
        loss = voxel_loss(
            pooled, *fused, *missing_bias, responses, kind=kind, voxel_weight=weights, tile=64, step=step, scale=scale
        )
        torch.testing.assert_close(loss, wanted, rtol=2e-5, atol=2e-6)
        optimizer.zero_grad()
        (exact,) = torch.autograd.grad(scale * wanted, pooled, retain_graph=True)
        (scale * wanted).backward()
        optimizer.step()
        (found,) = torch.autograd.grad(scale * loss, pooled)
        torch.testing.assert_close(found, exact, rtol=0, atol=2e-5 * float(exact.abs().max()))
        assert all(one.grad is None for one in fused)
        if kind == "temporal_r" and with_bias:  # its gradient is rounding, which AdamW makes large
            with torch.no_grad():
                fused[1].copy_(separate[1])
        for one, other, old in zip(fused, separate, before, strict=True):
            assert not torch.equal(one, old)
            torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-5)
    assert float(step.updates) == 6


def test_the_step_of_equal_gradients_is_equal_to_rounding():
    weight, bias = torch.randn(70, 5), torch.randn(70)
    ours, theirs = ([one.clone().requires_grad_() for one in (weight, bias)] for _ in range(2))
    step, optimizer = HeadStep(ours, **SETTINGS), torch.optim.AdamW(theirs, **SETTINGS)
    for update in range(20):
        gradients = [torch.randn(70, 5) * 10.0 ** -(update % 4), torch.randn(70)]
        step.advance()
        with torch.no_grad():
            for here in (slice(0, 64), slice(64, 70)):
                step.apply(here, [one[here] for one in gradients])
        for one, gradient in zip(theirs, gradients, strict=True):
            one.grad = gradient
        optimizer.step()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_a_step_goes_on_from_its_saved_state_to_the_bit(tmp_path):
    (pooled, weight, bias), responses, _ = problem(6, 4, 90, dtype=torch.float32)
    heads = [[one.detach().clone().requires_grad_() for one in (weight, bias)] for _ in range(2)]
    steps = [HeadStep(head, **SETTINGS) for head in heads]

    def update(number):
        voxel_loss(pooled, *heads[number], responses, step=steps[number], tile=64)

    for _ in range(3):
        update(0)
    save_file(steps[0].state_dict(), tmp_path / "step.safetensors")
    steps[1].load_state_dict(load_file(tmp_path / "step.safetensors"))
    with torch.no_grad():
        for one, other in zip(heads[1], heads[0], strict=True):
            one.copy_(other)
    for _ in range(2):
        update(0)
        update(1)
    assert all(torch.equal(one, other) for one, other in zip(heads[0], heads[1], strict=True))
    assert set(steps[0].state_dict()) == {
        f"{moment}.{name}" for moment in ("exp_avg", "exp_avg_sq") for name in ("weight", "bias")
    } | {"updates"}
    with pytest.raises(InputError, match="load the state of a head with as many voxels"):
        HeadStep([torch.zeros(8, 4), torch.zeros(8)]).load_state_dict(steps[0].state_dict())


def test_the_head_has_no_gradient_in_memory_where_it_is_stepped():
    b, d, v, tile = 8, 64, 2000, 100
    (pooled, weight, bias), responses, _ = problem(b, d, v)
    step = HeadStep([weight, bias])
    with Largest() as seen:
        voxel_loss(pooled, weight, bias, responses, step=step, tile=tile).backward()
    assert seen.bytes == 8 * d * tile < 8 * d * v


def test_a_head_alone_is_stepped_without_a_gradient_of_pooled():
    (pooled, weight, bias), responses, _ = problem(8, 4, 90, missing=0.0)
    step, losses = HeadStep([weight, bias], lr=0.05, weight_decay=0.0), []
    for _ in range(60):
        loss = voxel_loss(pooled.detach(), weight, bias, responses, step=step)
        loss.backward()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0] and weight.grad is None


def test_steps_that_cannot_be_right_are_refused():
    (pooled, weight, bias), responses, _ = problem(5, 3, 9)
    step, before = HeadStep([weight, bias]), weight.detach().clone()
    with pytest.raises(InputError, match="the step holds other tensors"):
        voxel_loss(pooled, weight.detach().clone().requires_grad_(), bias, responses, step=step)
    with pytest.raises(InputError, match="the step holds other tensors"):
        voxel_loss(pooled, weight, None, responses, step=step)
    with pytest.raises(InputError, match="the step holds other tensors"):
        voxel_loss(pooled, weight, bias, responses, step=HeadStep([weight]))
    with torch.no_grad(), pytest.raises(InputError, match="give step=None"):
        voxel_loss(pooled, weight, bias, responses, step=step)
    for scale in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match=f"scale={scale}"):
            voxel_loss(pooled, weight, bias, responses, step=step, scale=scale)
    assert torch.equal(weight, before) and float(step.updates) == 0
    with pytest.raises(InputError, match=r"multiplied by 0.5, after a step of the head for scale=1"):
        (0.5 * voxel_loss(pooled, weight, bias, responses, step=step)).backward()
    for change, words in ((dict(lr=-1.0), "lr=-1.0"), (dict(betas=(0.9, 1.0)), "betas"), (dict(eps=float("nan")), "eps=nan")):
        with pytest.raises(InputError, match=words):
            HeadStep([weight, bias], **change)
    with pytest.raises(InputError, match="give the weight"):
        HeadStep([weight, weight])


def test_bad_arguments_are_named():
    given, responses, _ = problem(5, 3, 9)
    for change, words in (
        (dict(kind="l1"), "kind='l1': choose from mse, spatial_r, temporal_r, cosine_mse"),
        (dict(tile=0), "tile=0"),
        (dict(voxel_weight=torch.ones(3)), r"voxel_weight has shape \(3,\) for 9 voxels"),
    ):
        with pytest.raises(InputError, match=words):
            voxel_loss(*given, responses, **change)
    with pytest.raises(InputError, match=r"responses \(5, 8\): expected"):
        voxel_loss(*given, responses[:, 1:])
