# distutils: language = c++
# distutils: include_dirs = kernels
# distutils: extra_compile_args = -O3
# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""One tile of targets and predictions to per-voxel moments, serial and without the GIL: threads run over tiles, outside.

Legend: t = time, v = voxels of the tile, w = voxels of one strip. Twin of moments.cu.
"""

import numpy as np

ctypedef fused floating:
    float
    double

cdef extern from "moments.cuh" nogil:
    void moments_add(double y, double p, double *sy, double *sp, double *syy, double *spp, double *syp)
    double moments_center(double sum_ab, double sum_a, double sum_b, double n)
    double moments_square(double sum_aa, double sum_a, double n)

# The five running sums of a strip stay in the first-level cache; a constant width lets the compiler unroll and vectorize.
cdef enum:
    STRIP = 64


cdef void _strip(
    const floating *target, const floating *predicted, Py_ssize_t n, Py_ssize_t width,
    Py_ssize_t target_step, Py_ssize_t predicted_step, double *out, Py_ssize_t out_step,
) noexcept nogil:
    cdef double y0[STRIP]
    cdef double p0[STRIP]
    cdef double sy[STRIP]
    cdef double sp[STRIP]
    cdef double syy[STRIP]
    cdef double spp[STRIP]
    cdef double syp[STRIP]
    cdef Py_ssize_t t, w
    cdef const floating *y
    cdef const floating *p
    for w in range(width):
        y0[w] = target[w]
        p0[w] = predicted[w]
        sy[w] = sp[w] = syy[w] = spp[w] = syp[w] = 0.0
    for t in range(n):
        y = target + t * target_step
        p = predicted + t * predicted_step
        if width == STRIP:
            for w in range(STRIP):
                moments_add(<double>y[w] - y0[w], <double>p[w] - p0[w], &sy[w], &sp[w], &syy[w], &spp[w], &syp[w])
        else:
            for w in range(width):
                moments_add(<double>y[w] - y0[w], <double>p[w] - p0[w], &sy[w], &sp[w], &syy[w], &spp[w], &syp[w])
    for w in range(width):
        out[w] = y0[w] + sy[w] / n
        out[w + out_step] = p0[w] + sp[w] / n
        out[w + 2 * out_step] = moments_square(syy[w], sy[w], n)
        out[w + 3 * out_step] = moments_square(spp[w], sp[w], n)
        out[w + 4 * out_step] = moments_center(syp[w], sy[w], sp[w], n)


def moments(const floating[:, :] target_tv, const floating[:, :] predicted_tv, double[:, ::1] out_mv=None):
    """Per-voxel moments of a tile.

    Parameters
    ----------
    target_tv, predicted_tv : (t, v) float32 or float64, both of one dtype
        The voxel axis must be contiguous; rows may be strided (a slice of a larger buffer). Never written to.
    out_mv : (5, v) float64, optional
        Where to write.

    Returns
    -------
    (5, v) float64
        Mean of targets, mean of predictions, and the centered sums yy, pp, yp. Zeros when there are no rows; exactly zero
        sums for a constant column; NaN where the column holds NaN.

    Raises
    ------
    ValueError
        If the shapes or the memory layout do not fit.
    """
    cdef Py_ssize_t n = target_tv.shape[0], v = target_tv.shape[1], first = 0, step_y, step_p
    if predicted_tv.shape[0] != n or predicted_tv.shape[1] != v:
        raise ValueError(
            f"moments: predictions are {predicted_tv.shape[0]} x {predicted_tv.shape[1]}, targets {n} x {v}; give equal shapes"
        )
    if out_mv is None:
        out_mv = np.empty((5, v))
    if out_mv.shape[0] != 5 or out_mv.shape[1] != v:
        raise ValueError(f"moments: out is {out_mv.shape[0]} x {out_mv.shape[1]}, it must be 5 x {v}")
    if n == 0 or v == 0:
        out_mv[:, :] = 0.0
        return np.asarray(out_mv)
    if v > 1 and (target_tv.strides[1] != sizeof(floating) or predicted_tv.strides[1] != sizeof(floating)):
        raise ValueError("moments: the voxel axis must be contiguous; pass numpy.ascontiguousarray(...)")
    if target_tv.strides[0] % sizeof(floating) or predicted_tv.strides[0] % sizeof(floating):
        raise ValueError("moments: rows must start at multiples of the item size; pass numpy.ascontiguousarray(...)")
    step_y = target_tv.strides[0] // <Py_ssize_t>sizeof(floating)
    step_p = predicted_tv.strides[0] // <Py_ssize_t>sizeof(floating)
    with nogil:
        while first < v:
            _strip(
                &target_tv[0, first], &predicted_tv[0, first], n, min(<Py_ssize_t>STRIP, v - first),
                step_y, step_p, &out_mv[0, first], v,
            )
            first += STRIP
    return np.asarray(out_mv)
