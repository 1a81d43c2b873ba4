// Windowed-sinc resampling on a card: the CUDA twin of lanczos.py.
//
// The CPU twin reads every old sample once and scatters it over the new rows that it reaches. Here one block takes one new row
// and one tile of columns, one thread a column. It gathers the old samples within reach, which several blocks share through the
// cache. No sum is made by two threads, so there are no atomics, and every sum is one chain in the order of old time whatever the
// grid. Weights are computed once for a block, LANCZOS_CHUNK at a time, and lie in shared memory.
//
// Old times ascend, because the host sorts them once. data_oc + order_o[o] * row_step is the row of old_o[o]. Old samples
// first_n[n] to last_n[n] (excluded), which the host finds by bisection, are within reach of new time n. With `rectify` the first
// half of out_nc takes the columns' negative parts and the second half their positive parts. The kernel adds to the values in
// out_nc, sum_n and gross_n. Loops over rows (x) and tiles of columns (y) are grid-stride: any grid is right, and one thread
// alone does all the work (the tests' shim).
#define LANCZOS_CHUNK 128

__device__ double lanczos_weight(double x, double lobes) {
    if (fabs(x) > lobes) return 0.0;
    if (fabs(x) < 1e-9) return 1.0;  // the weight is 1 to 1e-17 there; further in, the square would underflow to 0 / 0
    const double angle = 3.14159265358979323846 * x;
    return lobes * sinpi(x) * sinpi(x / lobes) / (angle * angle);
}

template <typename T>
__device__ void lanczos_tile(const T *data_oc, const long long *order_o, const double *old_o, const double *new_n,
                             const long long *first_n, const long long *last_n, double cutoff, double lobes, long long rectify,
                             double *out_nc, double *sum_n, double *gross_n, long long n, long long width, long long row_step) {
    __shared__ double weight_o[LANCZOS_CHUNK];
    const long long tiles = (width + blockDim.x - 1) / blockDim.x, step = rectify ? 2 * width : width;
    for (long long row = blockIdx.x; row < n; row += gridDim.x) {
        for (long long tile = blockIdx.y; tile < tiles; tile += gridDim.y) {
            const long long c = tile * blockDim.x + threadIdx.x;
            const bool sums = tile == 0 && threadIdx.x == 0;
            double *out = out_nc + row * step + c;
            double lower = c < width ? out[0] : 0.0, upper = c < width && rectify ? out[width] : 0.0;
            for (long long begin = first_n[row]; begin < last_n[row]; begin += LANCZOS_CHUNK) {
                const long long left = last_n[row] - begin;
                const int count = left < LANCZOS_CHUNK ? (int)left : LANCZOS_CHUNK;
                __syncthreads();  // all threads have read the weights of the chunk before
                for (int i = threadIdx.x; i < count; i += blockDim.x)
                    weight_o[i] = lanczos_weight((new_n[row] - old_o[begin + i]) * cutoff, lobes);
                __syncthreads();
                for (int i = 0; i < count && c < width; ++i) {
                    const double value = (double)data_oc[order_o[begin + i] * row_step + c];
                    // NaN must not vanish: it fails the comparison and so goes into the positive part.
                    const double negative = rectify && value < 0.0 ? value : 0.0;
                    lower += weight_o[i] * (rectify ? negative : value);
                    if (rectify) upper += weight_o[i] * (value - negative);
                }
                for (int i = 0; i < count && sums; ++i) {
                    sum_n[row] += weight_o[i];
                    gross_n[row] += fabs(weight_o[i]);
                }
            }
            if (c < width) {
                out[0] = lower;
                if (rectify) out[width] = upper;
            }
        }
    }
}

extern "C" __global__ void lanczos_float32(const float *data_oc, const long long *order_o, const double *old_o,
                                           const double *new_n, const long long *first_n, const long long *last_n, double cutoff,
                                           double lobes, long long rectify, double *out_nc, double *sum_n, double *gross_n,
                                           long long n, long long width, long long row_step) {
    lanczos_tile(data_oc, order_o, old_o, new_n, first_n, last_n, cutoff, lobes, rectify, out_nc, sum_n, gross_n, n, width,
                 row_step);
}

extern "C" __global__ void lanczos_float64(const double *data_oc, const long long *order_o, const double *old_o,
                                           const double *new_n, const long long *first_n, const long long *last_n, double cutoff,
                                           double lobes, long long rectify, double *out_nc, double *sum_n, double *gross_n,
                                           long long n, long long width, long long row_step) {
    lanczos_tile(data_oc, order_o, old_o, new_n, first_n, last_n, cutoff, lobes, rectify, out_nc, sum_n, gross_n, n, width,
                 row_step);
}
