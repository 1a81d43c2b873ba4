"""Lanczos resampling in pieces: the same bits as at once, rows as early as they can be had, memory for open rows only."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import fastencode
from fastencode.errors import InputError

NEW = np.arange(0.0, 40, 2.0)


def pieces(data, old, cuts):
    edges = [0, *sorted(cuts), len(old)]
    return [(data[a:b], old[a:b]) for a, b in zip(edges, edges[1:], strict=False)]


def in_pieces(data, old, new, cuts, **options):
    stream = fastencode.LanczosStream(new, **options)
    parts = [stream.add(*piece) for piece in pieces(data, old, cuts)]
    return np.concatenate([*parts, stream.finish()])


@settings(max_examples=150, deadline=None)
@given(
    old=arrays(np.float64, st.integers(0, 40), elements=st.floats(-20, 60, allow_subnormal=False)),
    new=arrays(np.float64, st.integers(2, 13), elements=st.floats(-30, 60, allow_subnormal=False)),
    cuts=st.lists(st.integers(0, 40), max_size=12),
    grid=st.booleans(),
    trailing=st.sampled_from([(), (1,), (5,), (2, 3), (0,)]),
    lobes=st.sampled_from([1.0, 2.5, 3.0]),
    mult=st.sampled_from([0.4, 1.0, 2.0]),
    normalize=st.booleans(),
    rectify=st.booleans(),
    dtype=st.sampled_from([np.float32, np.float64, np.int32]),
    seed=st.integers(0, 99),
)
def test_any_pieces_give_the_bits_of_one_call(old, new, cuts, grid, trailing, lobes, mult, normalize, rectify, dtype, seed):
    old, new = np.sort(np.round(old) if grid else old), np.sort(np.round(new) if grid else new)  # a grid: repeated, equal times
    new[-1] += 1.0  # a positive mean step
    data = (4 * np.random.default_rng(seed).standard_normal((len(old), *trailing))).astype(dtype)
    options = {"lobes": lobes, "cutoff_mult": mult, "normalize": normalize, "rectify": rectify}
    whole = fastencode.lanczos(data, old, new, **options)
    found = in_pieces(data, old, new, [cut for cut in cuts if cut <= len(old)], **options)
    assert found.dtype == whole.dtype and found.shape == whole.shape
    assert found.tobytes() == whole.tobytes()


def test_times_within_a_piece_may_have_any_order():
    rng = np.random.default_rng(0)
    data, old = rng.standard_normal((90, 3)), np.sort(np.round(rng.uniform(0, 40, 90)))
    shuffled = np.concatenate([a + rng.permutation(30) for a in (0, 30, 60)])
    at_once = fastencode.lanczos(data[shuffled], old[shuffled], NEW)
    assert np.array_equal(in_pieces(data[shuffled], old[shuffled], NEW, [30, 60]), at_once)


def test_rows_come_as_soon_as_no_later_sample_can_reach_them():
    old = np.arange(0, 40, 0.5)
    data = np.random.default_rng(1).standard_normal((80, 4))
    whole, given_out = fastencode.lanczos(data, old, NEW, lobes=2), 0
    stream = fastencode.LanczosStream(NEW, lobes=2)
    for row, time in zip(data, old, strict=True):
        part = stream.add(row[None], [time])
        assert np.array_equal(part, whole[given_out : given_out + len(part)])
        given_out += len(part)
        # A window ends 4 s after its row; one that ends now may get another sample of this very time.
        assert given_out == (time > NEW + 4).sum()
        assert stream.n_open == (np.abs(NEW - time) <= 4).sum()
    assert np.array_equal(stream.finish(), whole[given_out:]) and stream.n_open == 0
    tie = fastencode.LanczosStream(NEW, lobes=2)
    ready = [len(tie.add(np.ones(1), [time])) for time in (4.0, 4.0, np.nextafter(4.0, 5))]
    assert ready == [0, 0, 1]


def test_what_is_kept_is_bounded_by_the_windows():
    """An hour at 20 Hz in pieces of 10 s: at no time more rows than windows that are open at once, nor memory of the data."""
    import tracemalloc

    new = np.arange(0, 3600, 2.0)
    stream, most = fastencode.LanczosStream(new), 0
    rng, count = np.random.default_rng(2), 0
    stream.add(np.zeros((1, 64)), [0.0])  # compiled, and its buffers made
    tracemalloc.start()
    for start in range(0, 3600, 10):
        count += len(stream.add(rng.standard_normal((200, 64)), start + np.arange(0, 10, 0.05)))
        most = max(most, stream.n_open)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most <= 7 and count + len(stream.finish()) == len(new)
    piece, row = 200 * 64 * 8, 64 * 8
    # A piece and a copy of it while it is checked, sums of the rows that it opens and their copies; all data are 37 MB.
    assert peak < 3 * piece + 8 * (7 + 5) * row + 200_000


def test_a_piece_is_not_kept():
    import weakref

    stream, data = fastencode.LanczosStream(NEW), np.ones((4, 3))
    watch = weakref.ref(data)
    stream.add(data, np.arange(4.0))
    del data
    assert watch() is None


def test_torch_in_torch_out():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    stream = fastencode.LanczosStream(NEW)
    parts = [stream.add(torch.ones(30, 2), np.arange(0, 30.0)), stream.finish()]
    assert all(isinstance(part, torch.Tensor) and part.dtype == torch.float32 for part in parts)
    assert np.array_equal(torch.cat(parts).numpy(), fastencode.lanczos(np.ones((30, 2), np.float32), np.arange(0, 30.0), NEW))


def test_nothing_new_and_no_rows():
    stream = fastencode.LanczosStream([])
    assert stream.add(np.ones((3, 2), np.float32), [0.0, 1.0, 2.0]).shape == (0, 2)
    assert stream.finish().shape == (0, 2)
    empty = fastencode.LanczosStream(NEW, rectify=True)
    assert empty.add(np.empty((0, 3)), []).shape == (0, 6)
    assert np.array_equal(empty.finish(), np.zeros((20, 6)))


@pytest.mark.parametrize(
    ("data", "old", "message"),
    [
        (np.ones((2, 3)), [5.0, 8.9], r"old_times\[0\] is 5.0, before 9.0 in an earlier piece: .* lanczos\(\)"),
        (np.ones((3, 3)), [9.0, 10.0, 8.0], r"old_times\[2\] is 8.0, before 9.0"),
        (np.ones((1, 4)), [9.0], r"this piece is rows of shape \(4,\), float64, numpy on cpu, the first was .* \(3,\), f"),
        (np.ones((1, 3), np.float32), [9.0], "float32, numpy on cpu, the first was .* float64, numpy on cpu: convert it"),
        (np.ones((1, 3)), [9.0, 10.0], r"data has shape \(1, 3\) for 2 old_times"),
        (np.ones((1, 3)), [np.nan], r"old_times\[0\] is nan"),
        (np.full((1, 3), np.inf), [9.0], r"data\[0, 0\] is inf \(3 such"),
    ],
)
def test_bad_pieces_are_named_and_leave_the_stream_as_it_was(data, old, message):
    good, times = np.random.default_rng(3).standard_normal((20, 3)), np.arange(20.0)
    stream = fastencode.LanczosStream(NEW)
    parts = [stream.add(good[:10], times[:10])]
    with pytest.raises(InputError, match=message):
        stream.add(data, old)
    parts += [stream.add(good[10:], times[10:]), stream.finish()]
    assert np.array_equal(np.concatenate(parts), fastencode.lanczos(good, times, NEW))


def test_bad_calls_are_named():
    stream = fastencode.LanczosStream(NEW)
    with pytest.raises(InputError, match="before any piece: add at least one"):
        stream.finish()
    stream.add(np.ones(3), [0.0, 1.0, 2.0])
    stream.finish()
    with pytest.raises(InputError, match=r"a piece after finish\(\)"):
        stream.add(np.ones(3), [3.0, 4.0, 5.0])
    with pytest.raises(InputError, match="was called before"):
        stream.finish()
    for new, options, message in (
        ([3.0], {}, "one entry"),
        ([0.0, 2.0, 1.0], {}, "descends from 2.0 to 1.0"),
        (NEW, {"lobes": 0}, "lobes=0"),
        (NEW, {"cutoff_mult": np.nan}, "cutoff_mult=nan"),
    ):
        with pytest.raises(InputError, match=message):
            fastencode.LanczosStream(new, **options)
