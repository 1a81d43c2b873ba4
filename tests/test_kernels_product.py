"""Float32 products on matrix tiles against float64, against BLAS, and against themselves elsewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from fastencode import kernels
from fastencode.kernels import fallback

# (m, k, n): squares, steps, blocks and strips that are full, one short and one over; and what is too small for tiles.
SHAPES = [(96, 32, 32), (97, 33, 47), (127, 31, 64), (160, 128, 768), (161, 129, 769), (331, 257, 801), (1, 1, 1), (40, 500, 90)]
# (rows, columns, ends of segments, curves of each, nodes)
CUT = [(1, 1, [0, 1], [1], 1), (33, 17, [0, 5], [3], 7), (100, 70, [0, 40, 133, 200], [3, 1, 5], 12)]
CUT += [(300, 96, [0, 64, 400], [4, 9], 23), (129, 33, [0, 32, 64, 97], [2, 2, 2], 5)]


def tiled():
    if not kernels.has_tiles():
        pytest.skip("no matrix tiles here (AMX: processor, system and compiler must know them); BLAS multiplies")
    return kernels.cpu("product")


def factors(m, k, n, seed=0):
    rng = np.random.default_rng(seed)
    left = rng.standard_normal((m, k)) * np.geomspace(30, 0.03, k)  # columns of very different size, as a design's directions
    return left.astype(np.float32), rng.standard_normal((k, n)).astype(np.float32)


def errors(found, left, right):
    """Against float64, as parts of the norms of row and column."""
    left, right = left.astype(float), right.astype(float)
    size = np.linalg.norm(left, axis=1)[:, None] * np.linalg.norm(right, axis=0)
    return np.abs(found - left @ right) / size


@pytest.mark.parametrize("parts", [3, 2])
@pytest.mark.parametrize("layout", ["rows", "columns", "view", "read-only"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_float64(shape, layout, parts):
    (left, right), (m, _, n) = factors(*shape), shape
    out = np.full((m + 2, n + 16), -7.0, dtype=np.float32)
    if layout == "columns":
        left = np.asfortranarray(left)
    elif layout == "view":
        left, right = np.pad(left, ((1, 0), (3, 5)))[1:, 3:-5], np.pad(right, ((0, 1), (2, 2)))[:-1, 2:-2]
    elif layout == "read-only":
        left.flags.writeable = right.flags.writeable = False
    before = left.copy(), right.copy()
    kernels.cpu("product")(left, right, out[1:-1, 8:-8], parts)
    limit = 3e-7 if parts == 3 or not kernels.has_tiles() else 1e-5
    assert errors(out[1:-1, 8:-8], left, right).max() < limit
    out[1:-1, 8:-8] = -7.0
    assert (out == -7.0).all() and np.array_equal(left, before[0]) and np.array_equal(right, before[1])


def test_three_parts_are_as_exact_as_blas_and_two_are_not():
    left, right = factors(400, 900, 300)
    product, out = tiled(), np.empty((400, 300), np.float32)
    size = {parts: np.sqrt((errors(product(left, right, out, parts), left, right) ** 2).mean()) for parts in (3, 2)}
    blas = np.sqrt((errors(left @ right, left, right) ** 2).mean())
    assert size[3] < blas and 5 * blas < size[2] < 1e-6


def test_a_value_depends_on_its_row_and_column_only():
    left, right = factors(300, 200, 500)
    run = tiled()
    whole = run(left, right, np.empty((300, 500), np.float32))
    some = run(left[50:171], right[:, 131:300], np.empty((121, 169), np.float32))
    np.testing.assert_array_equal(some, whole[50:171, 131:300])


@pytest.mark.parametrize("scale", [1e-15, 1e15])
def test_large_and_small_numbers(scale):
    left, right = factors(120, 100, 64)
    left, right = left * np.float32(scale), right * np.float32(scale)
    assert errors(tiled()(left, right, np.empty((120, 64), np.float32)), left, right).max() < 3e-7


def test_many_threads():
    run, pairs = tiled(), [factors(200, 300, 250, seed) for seed in range(8)]
    alone = [run(left, right, np.empty((200, 250), np.float32)) for left, right in pairs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda pair: run(*pair, np.empty((200, 250), np.float32)), pairs * 4))
    for i, found in enumerate(together):
        np.testing.assert_array_equal(found, alone[i % 8])


def test_other_dtypes_and_strides_are_multiplied_all_the_same():
    left, right = factors(100, 50, 40)
    product = kernels.cpu("product")
    wide = product(left.astype(float), right.astype(float), np.empty((100, 40)))
    np.testing.assert_array_equal(wide, left.astype(float) @ right.astype(float))
    strided = np.repeat(right, 2, axis=1)[:, ::2]
    assert errors(product(left, strided, np.empty((100, 40), np.float32)), left, right).max() < 3e-7


@pytest.mark.parametrize("function", ["compiled", "fallback"])
def test_shapes_that_do_not_fit_are_refused(function):
    product, shrunk = fallback.product, fallback.shrunk
    if function == "compiled":
        product, shrunk = kernels.cpu("product"), kernels.cpu("shrunk")
    a, b, out = np.ones((100, 40), np.float32), np.ones((40, 50), np.float32), np.empty((100, 50), np.float32)
    with pytest.raises(ValueError, match=r"factors are \(100, 40\) and \(41, 50\)"):
        product(a, np.ones((41, 50), np.float32), out)
    with pytest.raises(ValueError, match="out is"):
        product(a, b, out[1:])
    with pytest.raises(ValueError, match="parts is 4"):
        product(a, b, out, 4)
    ends, counts, curves, made = np.array([0, 40]), np.array([2]), np.ones(80, np.float32), np.empty((2, 100, 50), np.float32)
    shrunk(a, b, ends, counts, curves, None, made)
    for wrong, message in (
        ((a, b, np.array([0, 39]), counts, curves, None, made), "segments end at"),
        ((a, b, np.array([0, 50, 40]), np.array([1, 1]), curves, None, made), "segments end at"),
        ((a, b, ends, counts, curves[1:], None, made), "curves are"),
        ((a, b, ends, counts, curves, np.ones((2, 3), np.float32), made), "mix is"),
        ((a, b, np.array([0, 20, 40]), np.array([1, 1]), curves[:40], None, made), "no mix"),
        ((a, b[1:], ends, counts, curves, None, made), "give"),
    ):
        with pytest.raises(ValueError, match=message):
            shrunk(*wrong)


@pytest.mark.parametrize("parts", [3, 2])
@pytest.mark.parametrize("mixed", [True, False])
@pytest.mark.parametrize("case", CUT, ids=str)
def test_shrunk_products_equal_float64(case, mixed, parts):
    m, n, ends, counts, nodes = case
    if not mixed and len(counts) > 1:
        counts, ends = counts[:1], [0, ends[-1]]
    ends, counts, rng = np.array(ends), np.array(counts), np.random.default_rng(1)
    left, right = factors(m, ends[-1], n)
    curves = rng.uniform(0.1, 1.0, (np.diff(ends) * counts).sum()).astype(np.float32)
    mix = rng.standard_normal((nodes, counts.sum())).astype(np.float32) if mixed else None
    out = np.full((nodes if mixed else counts[0], m + 1, n + 3), -7.0, dtype=np.float32)
    kernels.cpu("shrunk")(left, right, ends, counts, curves, mix, out[:, 1:, 3:], parts)
    made, place = [], 0
    for start, stop, count in zip(ends[:-1], ends[1:], counts, strict=True):
        for _ in range(count):
            made.append((left[:, start:stop] * curves[place : place + stop - start].astype(float)) @ right[start:stop])
            place += stop - start
    wanted = np.array(made) if mix is None else np.einsum("kq,qmn->kmn", mix.astype(float), made)
    # Without tiles the products are BLAS's own in float32.
    limit = (1e-6 if parts == 3 else 1e-4) if kernels.has_tiles() else 3e-6
    np.testing.assert_allclose(out[:, 1:, 3:], wanted, atol=limit * np.abs(wanted).max())
    assert (out[:, 0] == -7.0).all() and (out[:, :, :3] == -7.0).all()


def test_the_environment_can_forbid_tiles():
    program = "from fastencode import kernels; print(kernels.has_tiles())"
    environment = {**os.environ, "FASTENCODE_NO_TILES": "1"}
    found = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_compiles_where_there_are_no_tiles(tmp_path):
    compiler = shutil.which("g++") or shutil.which("c++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler to build the header with")
    source = tmp_path / "main.cpp"
    source.write_text('#include "product_tiles.hpp"\nint main() { return product_has_tiles() ? 1 : 0; }\n')
    folder = str(Path(kernels.__file__).parent)
    flags = ["-DFASTENCODE_NO_VECTORS", "-Wall", "-Werror", "-Wno-unused-function", "-I", folder]
    subprocess.run([compiler, *flags, str(source), "-o", str(tmp_path / "main")], check=True)
    subprocess.run([str(tmp_path / "main")], check=True)
