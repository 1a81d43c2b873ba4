// Per-voxel moments of one tile of targets and predictions (docs/solver.md, 4): the CUDA twin of moments.pyx.
//
// One thread takes one voxel and one tile of pairs: up to four series by four, which its registers hold. Neighboring threads read
// neighboring voxels, so every row is one coalesced read. Tiles of pairs (blockIdx.y) read the same rows again, from the cache.
// Both loops are grid-stride: any grid is right, and one thread alone runs the whole tile serially (the host shim of the tests).
// A grid with y = tiles of pairs, (b + 1) b / 2 with b = ceil((k + 1) / 4), fills a card best. Steps count values. Rows of weight
// zero do not count; `weight_t` may be null. The kernel writes to `out_mv`, ((k + 1)(k + 4) / 2, v), only.
#include "moments.cuh"

#define MOMENTS_SIDE 4

template <typename T>
__device__ void moments_pairs(const T *target_tv, const T *predicted_ktv, const double *weight_t, double *out_mv, long long k,
                              long long t, long long v, long long target_step, long long predicted_node_step,
                              long long predicted_row_step, long long bi, long long bj, long long first, double total,
                              long long w) {
    const long long series = k + 1;
    const T *row[2 * MOMENTS_SIDE];
    long long step[2 * MOMENTS_SIDE];
    double start[2 * MOMENTS_SIDE], sum[2 * MOMENTS_SIDE], product[MOMENTS_SIDE * MOMENTS_SIDE];
    for (int a = 0; a < 2 * MOMENTS_SIDE; ++a) {
        long long s = (a < MOMENTS_SIDE ? bi : bj) * MOMENTS_SIDE + a % MOMENTS_SIDE;
        if (s > k) s = k;  // past the last series: read the last one again; its results are not written
        step[a] = s == 0 ? target_step : predicted_row_step;
        row[a] = (s == 0 ? target_tv : predicted_ktv + (s - 1) * predicted_node_step) + first * step[a] + w;
        start[a] = (double)*row[a];
        sum[a] = 0.0;
    }
    for (int m = 0; m < MOMENTS_SIDE * MOMENTS_SIDE; ++m) product[m] = 0.0;
    for (long long r = first; r < t; ++r) {
        const double weight = weight_t ? weight_t[r] : 1.0;
        double x[2 * MOMENTS_SIDE];
        for (int a = 0; a < 2 * MOMENTS_SIDE; ++a) {
            x[a] = weight > 0.0 ? (double)*row[a] - start[a] : 0.0;
            sum[a] += weight * x[a];
            row[a] += step[a];
        }
        for (int a = 0; a < MOMENTS_SIDE; ++a)
            for (int b = 0; b < MOMENTS_SIDE; ++b) product[a * MOMENTS_SIDE + b] += weight * x[a] * x[MOMENTS_SIDE + b];
    }
    for (int a = 0; a < MOMENTS_SIDE; ++a) {
        const long long i = bi * MOMENTS_SIDE + a;
        if (i > k) break;
        if (bi == bj) out_mv[i * v + w] = start[a] + sum[a] / total;
        for (int b = 0; b < MOMENTS_SIDE; ++b) {
            const long long j = bj * MOMENTS_SIDE + b;
            if (j > i) break;
            const double center = MOMENTS_CENTER(product[a * MOMENTS_SIDE + b], sum[a] / total, sum[MOMENTS_SIDE + b]);
            out_mv[moments_row(series, i, j) * v + w] = i == j ? moments_square(center) : center;
        }
    }
}

template <typename T>
__device__ void moments_tile(const T *target_tv, const T *predicted_ktv, const double *weight_t, double *out_mv, long long k,
                             long long t, long long v, long long target_step, long long predicted_node_step,
                             long long predicted_row_step) {
    const long long blocks = (k + MOMENTS_SIDE) / MOMENTS_SIDE, tiles = blocks * (blocks + 1) / 2;
    const long long begin = (long long)blockIdx.x * blockDim.x + threadIdx.x, stride = (long long)gridDim.x * blockDim.x;
    long long first = 0;
    double total = (double)t;
    if (weight_t) {
        total = 0.0;
        for (long long r = t - 1; r >= 0; --r) {
            total += weight_t[r];
            if (weight_t[r] > 0.0) first = r;
        }
    }
    if (!(total > 0.0)) {
        for (long long m = blockIdx.y; m < moments_row(k + 1, k + 1, 0); m += gridDim.y)
            for (long long w = begin; w < v; w += stride) out_mv[m * v + w] = 0.0;
        return;
    }
    for (long long tile = blockIdx.y; tile < tiles; tile += gridDim.y) {
        long long bi = 0;
        while ((bi + 1) * (bi + 2) / 2 <= tile) ++bi;
        const long long bj = tile - bi * (bi + 1) / 2;
        for (long long w = begin; w < v; w += stride)
            moments_pairs(target_tv, predicted_ktv, weight_t, out_mv, k, t, v, target_step, predicted_node_step,
                          predicted_row_step, bi, bj, first, total, w);
    }
}

extern "C" __global__ void moments_float32(const float *target_tv, const float *predicted_ktv, const double *weight_t,
                                           double *out_mv, long long k, long long t, long long v, long long target_step,
                                           long long predicted_node_step, long long predicted_row_step) {
    moments_tile(target_tv, predicted_ktv, weight_t, out_mv, k, t, v, target_step, predicted_node_step, predicted_row_step);
}

extern "C" __global__ void moments_float64(const double *target_tv, const double *predicted_ktv, const double *weight_t,
                                           double *out_mv, long long k, long long t, long long v, long long target_step,
                                           long long predicted_node_step, long long predicted_row_step) {
    moments_tile(target_tv, predicted_ktv, weight_t, out_mv, k, t, v, target_step, predicted_node_step, predicted_row_step);
}
