# distutils: language = c++
# distutils: include_dirs = kernels
# distutils: extra_compile_args = -O3
# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Per-voxel moments of one tile of targets and predictions (docs/solver.md, 4), serial and without the GIL.

Callers run tiles in several threads. The loop is in moments_cpu.hpp and moments_loop.hpp; moments.cu is the CUDA twin.

Legend: k = nodes (predictions of one tile at several penalties), t = time, v = voxels of the tile, m = moments.
"""

import numpy as np

from fastencode.kernels.fallback import check_moments, rows_that_count

ctypedef fused floating:
    float
    double

cdef extern from "moments_cpu.hpp" nogil:
    Py_ssize_t moments_scratch(Py_ssize_t k, Py_ssize_t v)
    void moments_tile[T](
        const T *target, const T *predicted, const Py_ssize_t *rows, const double *weight, const double *root, double total,
        Py_ssize_t k, Py_ssize_t n, Py_ssize_t v, Py_ssize_t target_step, Py_ssize_t node_step, Py_ssize_t row_step,
        double *scratch, double *out, bint crossed,
    )


cdef Py_ssize_t _step(Py_ssize_t stride, Py_ssize_t length, Py_ssize_t size) except? -1:
    """A stride in values. 0 for an axis of length 1, whose stride may have any value and is never used."""
    if length < 2:
        return 0
    if stride % size:
        raise ValueError("moments: rows must start at multiples of the item size; pass numpy.ascontiguousarray(...)")
    return stride // size


def moments(
    const floating[:, :] target_tv, const floating[:, :, :] predicted_ktv, weight_t=None, double[:, ::1] out_mv=None,
    bint crossed=True,
):
    """Per-voxel moments of a tile. Every score of every linear combination of the predictions follows from them.

    Parameters
    ----------
    target_tv : (t, v) float32 or float64
        Responses. The voxel axis must be contiguous; rows may be strided (a slice of a larger buffer). Never written to.
    predicted_ktv : (k, t, v), same dtype
        Predictions at k nodes; nodes and rows may be strided.
    weight_t : (t,) float64, optional
        Weights of the rows, at least 0, not all 0. Rows of weight 0 are not read, so they may hold NaN.
    out_mv : (m, v) float64, optional
        Receives the result.
    crossed : bool
        False skips the sums of products of two different predictions: they are zeros then. The CUDA twin always computes them.

    Returns
    -------
    (m, v) float64, m = (k + 1) + (k + 1)(k + 2) / 2
        The (weighted) means of target, prediction 0, 1, ..., then the lower triangle of the matrix of their centered (weighted)
        sums, row by row: yy, y·p0, p0·p0, y·p1, p0·p1, p1·p1, ... All are zero if there are no rows. Sums of a constant column
        are exactly zero; those of a column that holds NaN are NaN; squares are never negative. A voxel's result does not depend
        on other voxels or on its place, to the last bit. Between kinds of processors the last bits may differ.

    Raises
    ------
    ValueError
        If the shapes, the memory layout or the weights do not fit.
    """
    cdef Py_ssize_t k = predicted_ktv.shape[0], n = target_tv.shape[0], v = target_tv.shape[1], size = sizeof(floating)
    cdef Py_ssize_t step_y, step_k, step_t, skip
    cdef const Py_ssize_t[::1] rows
    cdef const double[::1] weight, root
    cdef const Py_ssize_t *rows_at = NULL
    cdef const double *weight_at = NULL
    cdef const double *root_at = NULL
    cdef const floating *predicted = NULL
    cdef double[::1] scratch
    cdef double total = n
    out = np.empty(((k + 1) * (k + 4) // 2, v)) if out_mv is None else np.asarray(out_mv)
    out_mv = out
    check_moments((n, v), (k, predicted_ktv.shape[1], predicted_ktv.shape[2]), out.shape)
    if weight_t is not None:
        rows, weight, root, total = rows_that_count(weight_t, n)
    if n == 0 or v == 0:
        out_mv[:, :] = 0.0
        return out
    if v > 1 and (target_tv.strides[1] != size or (k > 0 and predicted_ktv.strides[2] != size)):
        raise ValueError("moments: the voxel axis must be contiguous; pass numpy.ascontiguousarray(...)")
    step_y = _step(target_tv.strides[0], n, size)
    step_k = _step(predicted_ktv.strides[0], k, size)
    step_t = _step(predicted_ktv.strides[1], n, size)
    if weight_t is not None:
        n = rows.shape[0]
        rows_at, weight_at, root_at = &rows[0], &weight[0], &root[0]
    if k > 0:
        predicted = &predicted_ktv[0, 0, 0]
    scratch = np.empty(moments_scratch(k, v) + 8)
    skip = (-(<Py_ssize_t>&scratch[0]) & 63) // 8  # the loop's vectors are aligned to lines of the cache
    with nogil:
        moments_tile(
            &target_tv[0, 0], predicted, rows_at, weight_at, root_at, total, k, n, v, step_y, step_k, step_t,
            &scratch[skip], &out_mv[0, 0], crossed,
        )
    return out
