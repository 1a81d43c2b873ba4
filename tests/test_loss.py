"""The tiled loss against the plain one, its gradients by finite differences, and what it never allocates."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastencode.errors import InputError
from fastencode.tune.loss import voxel_loss
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


class Largest(torch.overrides.TorchFunctionMode):
    """Notes the largest tensor that any function returns."""

    numbers = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.numbers = max(self.numbers, out.numel())
        return out


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_the_size_of_all_predictions_is_made(kind):
    given, responses, _ = problem(64, 2, 4000, missing=0.1)
    with Largest() as seen:
        voxel_loss(*given, responses, kind=kind, tile=100).backward()
    assert seen.numbers <= 2 * 4000 < 64 * 4000
    with Largest() as seen:
        plain(*given, responses, "mse", None)
    assert seen.numbers == 64 * 4000


def test_bad_arguments_are_named():
    given, responses, _ = problem(5, 3, 9)
    for change, words in (
        (dict(kind="l1"), "kind='l1': choose among mse, spatial_r, temporal_r, cosine_mse"),
        (dict(tile=0), "tile=0"),
        (dict(voxel_weight=torch.ones(3)), r"voxel_weight has shape \(3,\) for 9 voxels"),
    ):
        with pytest.raises(InputError, match=words):
            voxel_loss(*given, responses, **change)
    with pytest.raises(InputError, match=r"responses \(5, 8\): expected"):
        voxel_loss(*given, responses[:, 1:])
