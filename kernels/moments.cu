// One tile of targets and predictions to per-voxel moments: the CUDA twin of moments.pyx.
//
// One thread walks one voxel's column; neighboring threads read neighboring voxels, so every row is one coalesced read.
// Grid-stride over voxels: any grid is right, and a grid of one thread runs the whole tile serially (the host shim of the tests).
#include "moments.cuh"

template <typename T>
__device__ void moments_tile(const T *target_tv, const T *predicted_tv, double *out_mv, long long n, long long v,
                             long long target_step, long long predicted_step) {
    const long long stride = (long long)gridDim.x * blockDim.x;
    for (long long w = (long long)blockIdx.x * blockDim.x + threadIdx.x; w < v; w += stride) {
        if (n == 0) {
            for (int m = 0; m < 5; ++m) out_mv[m * v + w] = 0.0;
            continue;
        }
        const double y0 = target_tv[w], p0 = predicted_tv[w];
        double sy = 0.0, sp = 0.0, syy = 0.0, spp = 0.0, syp = 0.0;
        for (long long t = 0; t < n; ++t)
            moments_add((double)target_tv[t * target_step + w] - y0, (double)predicted_tv[t * predicted_step + w] - p0, &sy, &sp,
                        &syy, &spp, &syp);
        out_mv[w] = y0 + sy / n;
        out_mv[v + w] = p0 + sp / n;
        out_mv[2 * v + w] = moments_square(syy, sy, n);
        out_mv[3 * v + w] = moments_square(spp, sp, n);
        out_mv[4 * v + w] = moments_center(syp, sy, sp, n);
    }
}

extern "C" __global__ void moments_float32(const float *target_tv, const float *predicted_tv, double *out_mv, long long n,
                                           long long v, long long target_step, long long predicted_step) {
    moments_tile(target_tv, predicted_tv, out_mv, n, v, target_step, predicted_step);
}

extern "C" __global__ void moments_float64(const double *target_tv, const double *predicted_tv, double *out_mv, long long n,
                                           long long v, long long target_step, long long predicted_step) {
    moments_tile(target_tv, predicted_tv, out_mv, n, v, target_step, predicted_step);
}
