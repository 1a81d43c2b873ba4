// Convolution of events with a hemodynamic response on a card: the CUDA twin of hrf.py.
//
// The CPU twin scatters every event over the new times that it reaches. Here one block takes one new time and one tile of
// columns, one thread a column. It gathers the events that reach the new time. No sum is made by two threads, so there are no
// atomics, and every sum is one chain in the order of events whatever the grid. The response is computed once for a block,
// HRF_CHUNK events at a time, and lies in shared memory.
//
// Events ascend, because the host sorts them once. data_oc + order_o[o] * row_step is the row of event_o[o]. A gather needs two
// arguments more than a scatter: all events that reach new time n are among first_n[n] to last_n[n] (excluded), which the host
// finds by bisection. Events among them that ended too early are skipped. `start` is the first column. The kernel adds to the
// values in out_nc. Loops over new times (x) and tiles of columns (y) are grid-stride: any grid is right, and one thread alone
// does all the work (the tests' shim).
#define HRF_CHUNK 128
#define HRF_TERM 5  // amplitude, shift, shape, scale, log of the gamma function of the shape

__device__ double gamma_pdf(double t, double shape, double scale, double log_gamma) {
    if (t < 0.0) return 0.0;
    const double x = t / scale;
    if (x == 0.0) return shape == 1.0 ? 1.0 / scale : 0.0;
    return exp((shape - 1.0) * log(x) - x - log_gamma) / scale;
}

// Series below the mean, continued fraction (Lentz) above.
__device__ double gamma_cdf(double t, double shape, double scale, double log_gamma) {
    const double x = t / scale;
    if (x <= 0.0) return 0.0;
    const double front = exp(shape * log(x) - x - log_gamma);
    if (x < shape + 1.0) {
        double term = 1.0 / shape, total = term, k = shape;
        while (fabs(term) > fabs(total) * 1e-17) {
            k += 1.0;
            term *= x / k;
            total += term;
        }
        return front * total;
    }
    double b = x + 1.0 - shape, c = 1e300, d = 1.0 / b, fraction = d;
    for (int i = 1; i < 1000; ++i) {
        const double a = -i * (i - shape);
        b += 2.0;
        d = a * d + b;
        c = b + a / c;
        d = 1.0 / (fabs(d) > 1e-300 ? d : 1e-300);
        c = fabs(c) > 1e-300 ? c : 1e-300;
        const double step = c * d;
        fraction *= step;
        if (fabs(step - 1.0) < 1e-16) break;
    }
    return 1.0 - front * fraction;
}

// The response `lag` seconds after the onset of an event: to an impulse, or to a boxcar of height 1 if the event lasts `length`
// seconds, more than 0. The caller found that the event reaches the new time; rounding may put the lag just beyond the support.
__device__ double hrf_response(double lag, double length, double support, const double *terms_m, long long terms) {
    double total = 0.0;
    if (length > 0.0) {
        const double upper = fmin(lag, support), lower = fmin(lag - length, support);
        for (const double *term = terms_m; term < terms_m + terms * HRF_TERM; term += HRF_TERM)
            total += term[0] * (gamma_cdf(upper - term[1], term[2], term[3], term[4]) -
                                gamma_cdf(lower - term[1], term[2], term[3], term[4]));
    } else {
        const double inside = fmin(lag, support);
        for (const double *term = terms_m; term < terms_m + terms * HRF_TERM; term += HRF_TERM)
            total += term[0] * gamma_pdf(inside - term[1], term[2], term[3], term[4]);
    }
    return total;
}

template <typename T>
__device__ void hrf_tile(const T *data_oc, const long long *order_o, const double *event_o, const double *length_o,
                         const double *new_n, double support, const double *terms_m, long long start, double *out_nc,
                         const long long *first_n, const long long *last_n, long long n, long long width, long long terms,
                         long long row_step) {
    __shared__ double weight_o[HRF_CHUNK];
    __shared__ bool reaches_o[HRF_CHUNK];
    const long long tiles = (width + blockDim.x - 1) / blockDim.x;
    for (long long row = blockIdx.x; row < n; row += gridDim.x) {
        for (long long tile = blockIdx.y; tile < tiles; tile += gridDim.y) {
            const long long c = tile * blockDim.x + threadIdx.x;
            double total = c < width ? out_nc[row * width + c] : 0.0;
            for (long long begin = first_n[row]; begin < last_n[row]; begin += HRF_CHUNK) {
                const long long left = last_n[row] - begin;
                const int count = left < HRF_CHUNK ? (int)left : HRF_CHUNK;
                __syncthreads();  // all threads have read the weights of the chunk before
                for (int i = threadIdx.x; i < count; i += blockDim.x) {
                    const double onset = event_o[begin + i], length = length_o[begin + i];
                    reaches_o[i] = onset <= new_n[row] && new_n[row] <= onset + length + support;
                    weight_o[i] = reaches_o[i] ? hrf_response(new_n[row] - onset, length, support, terms_m, terms) : 0.0;
                }
                __syncthreads();
                for (int i = 0; i < count && c < width; ++i)  // rows of events that do not reach may hold NaN
                    if (reaches_o[i]) total += weight_o[i] * (double)data_oc[order_o[begin + i] * row_step + start + c];
            }
            if (c < width) out_nc[row * width + c] = total;
        }
    }
}

extern "C" __global__ void hrf_float32(const float *data_oc, const long long *order_o, const double *event_o,
                                       const double *length_o, const double *new_n, double support, const double *terms_m,
                                       long long start, double *out_nc, const long long *first_n, const long long *last_n,
                                       long long n, long long width, long long terms, long long row_step) {
    hrf_tile(data_oc, order_o, event_o, length_o, new_n, support, terms_m, start, out_nc, first_n, last_n, n, width, terms,
             row_step);
}

extern "C" __global__ void hrf_float64(const double *data_oc, const long long *order_o, const double *event_o,
                                       const double *length_o, const double *new_n, double support, const double *terms_m,
                                       long long start, double *out_nc, const long long *first_n, const long long *last_n,
                                       long long n, long long width, long long terms, long long row_step) {
    hrf_tile(data_oc, order_o, event_o, length_o, new_n, support, terms_m, start, out_nc, first_n, last_n, n, width, terms,
             row_step);
}
