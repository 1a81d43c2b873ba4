# distutils: language = c++
# distutils: include_dirs = kernels
# distutils: extra_compile_args = -O3
# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Float32 matrix products on a processor's matrix tiles, serial and without the GIL (docs/solver.md, 5 and 8).

The loop and the bound of its error are in product_tiles.hpp. There is no CUDA twin: a card's own library has such products.
"""

from threading import local

import numpy as np

from fastencode.kernels.fallback import check_product, check_shrunk
from fastencode.kernels.fallback import shrunk as shrunk_by_blas

cdef extern from "product_tiles.hpp" nogil:
    ctypedef unsigned short half "std::uint16_t"
    bint product_has_tiles()
    Py_ssize_t product_scratch(Py_ssize_t parts)
    void product_tiles(
        const float *left, Py_ssize_t left_step, bint turned, const float *right, Py_ssize_t right_step, float *out,
        Py_ssize_t out_step, Py_ssize_t m, Py_ssize_t k, Py_ssize_t n, int parts, half *scratch,
    )
    struct ProductSegments:
        const Py_ssize_t *ends
        const Py_ssize_t *counts
        Py_ssize_t pieces, nodes
        const float *curves
        const float *mix
    Py_ssize_t shrunk_scratch(const ProductSegments &segments, Py_ssize_t m, Py_ssize_t parts)
    void shrunk_tiles(
        const ProductSegments &segments, const float *rows, Py_ssize_t rows_step, const float *inner, Py_ssize_t inner_step,
        float *out, Py_ssize_t node_step, Py_ssize_t row_step, Py_ssize_t m, Py_ssize_t n, int parts, half *scratch,
    )

# With fewer rows, columns or inner values, BLAS is as fast: then splitting and padding the factors takes too large a share.
cdef Py_ssize_t FEWEST_ROWS = 96, FEWEST = 32
cdef bint found = product_has_tiles()
_kept = local()  # scratch of each thread: fresh pages for every product would cost a few percent of its time


cdef unsigned char[::1] _scratch(Py_ssize_t size):
    """At least ``size`` bytes of scratch, aligned to a cache line."""
    cdef unsigned char[::1] scratch = getattr(_kept, "scratch", None)
    cdef Py_ssize_t skip
    if scratch is None or scratch.shape[0] < size + 64:
        scratch = np.empty(size + 64, dtype=np.uint8)
        _kept.scratch = scratch
    skip = (-(<Py_ssize_t>&scratch[0])) & 63
    return scratch[skip:]


def has_tiles():
    """Whether this process may use matrix tiles: the processor, the system and the compiler must all know them."""
    return bool(found)


cdef bint _fits(Py_ssize_t m, Py_ssize_t k, Py_ssize_t n) noexcept nogil:
    return found and m >= FEWEST_ROWS and k >= FEWEST and n >= FEWEST


def product(left, right, out, int parts=3):
    """left @ right in float32, on matrix tiles where there are any and the product is large enough, else ``numpy.matmul``.

    Parameters
    ----------
    left : (m, k) float32
        Left factor. Its rows or its columns must be contiguous. Never written to.
    right : (k, n) float32
        Right factor. Its rows must be contiguous.
    out : (m, n) float32
        Receives the product. Its rows must be contiguous, and must not overlap the factors.
    parts : {3, 2}
        Bfloat16 numbers that each float32 number is split into. With three, the error of a product xy is below 2 · 2⁻²⁴ |x||y|,
        as in float32 arithmetic. With two it is below 3 · 2⁻¹⁶ |x||y|, in about half the time. ``numpy.matmul`` ignores it.

    Returns
    -------
    out

    Raises
    ------
    ValueError
        If the shapes do not fit together, or ``parts`` is neither 2 nor 3.

    Notes
    -----
    Other dtypes and strides go to ``numpy.matmul``. A value of the result depends on its row and its column only.
    """
    check_product(left.shape, right.shape, out.shape, parts)
    cdef Py_ssize_t m = left.shape[0], k = left.shape[1], n = right.shape[1], step
    cdef bint turned = left.strides[1] != 4
    if (
        not _fits(m, k, n)
        or not left.dtype == right.dtype == out.dtype == np.float32
        or left.strides[0 if turned else 1] != 4 or right.strides[1] != 4 or out.strides[1] != 4
    ):
        return np.matmul(left, right, out=out)
    step = left.strides[1 if turned else 0]
    if step % 4 or right.strides[0] % 4 or out.strides[0] % 4:
        return np.matmul(left, right, out=out)
    cdef const float[:, :] a = left, b = right
    cdef float[:, :] c = out
    cdef unsigned char[::1] scratch = _scratch(product_scratch(parts))
    step //= 4
    with nogil:
        product_tiles(
            &a[0, 0], step, turned, &b[0, 0], b.strides[0] // 4, &c[0, 0], c.strides[0] // 4, m, k, n, parts,
            <half *>&scratch[0],
        )
    return out


def shrunk(rows, inner, ends, counts, curves, mix, out, int parts=3):
    """out[j] = rows @ diag(g_j) @ inner at every node j, where the g_j over a segment are combinations of a few curves.

    Parameters
    ----------
    rows : (m, r) float32
        Its rows must be contiguous.
    inner : (r, n) float32
        Its rows must be contiguous.
    ends : (s + 1,) intp
        The first direction of each segment, then r: 0, …, r.
    counts : (s,) intp
        Curves of each segment.
    curves : (·,) float32
        All curves, segment by segment, one after another.
    mix : (k, q) float32, or None
        g_j over a segment = the sum of mix[j, ·] times its curves; q is the number of curves. None: g_j is curve j of the one
        segment.
    out : (k, m, n) float32
        Receives the results. Its rows must be contiguous.
    parts : {3, 2}
        As in :func:`product`.

    Returns
    -------
    out

    Raises
    ------
    ValueError
        If the shapes do not fit together, or ``parts`` is neither 2 nor 3.
    """
    check_shrunk(rows.shape, inner.shape, ends, counts, curves.shape, None if mix is None else mix.shape, out.shape, parts)
    cdef Py_ssize_t m = rows.shape[0], n = inner.shape[1]
    fit = rows.dtype == inner.dtype == out.dtype == np.float32
    fit = fit and rows.strides[1] == inner.strides[1] == out.strides[2] == 4
    if not found or not fit or m == 0 or n == 0 or rows.shape[1] == 0 or len(out) == 0:
        return shrunk_by_blas(rows, inner, ends, counts, curves, mix, out, parts)
    cdef const float[:, :] a = rows, b = inner
    cdef float[:, :, :] c = out
    cdef const Py_ssize_t[::1] ends_at = ends, counts_at = counts
    cdef const float[::1] curves_at = curves
    cdef const float[:, ::1] mix_at
    cdef ProductSegments segments
    segments.ends, segments.counts, segments.pieces = &ends_at[0], &counts_at[0], counts_at.shape[0]
    segments.nodes, segments.curves, segments.mix = c.shape[0], &curves_at[0], <const float *> NULL
    if mix is not None:
        mix_at = mix
        segments.mix = &mix_at[0, 0]
    cdef unsigned char[::1] scratch = _scratch(shrunk_scratch(segments, m, parts))
    with nogil:
        shrunk_tiles(
            segments, &a[0, 0], a.strides[0] // 4, &b[0, 0], b.strides[0] // 4, &c[0, 0, 0], c.strides[0] // 4, c.strides[1] // 4,
            m, n, parts, <half *>&scratch[0],
        )
    return out
