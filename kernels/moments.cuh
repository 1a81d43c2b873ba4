// The scalar maths of `moments`, shared by moments.pyx (as C++) and moments.cu (as CUDA): change it here and both twins change.
//
// Every value is taken relative to the voxel's first row that counts. That row is one of the samples, so the sum of squares
// about it is at most (n + 1) times the centered one (of that order for weights, too, unless the first is tiny): one pass is
// enough, a huge common offset costs no digits, and a constant column comes out as exactly zero. Sums are kept in double whatever
// the input. With weights, n is their sum; rows of weight zero are passed over, as if they were not there.
#ifndef FASTENCODE_MOMENTS_CUH
#define FASTENCODE_MOMENTS_CUH

#ifdef __CUDACC__
#define FASTENCODE_HD __host__ __device__ __forceinline__
#else
#define FASTENCODE_HD inline
#endif

// Rows of the result: the means of all series (0 is the target, i the prediction of node i - 1), then the lower triangle of
// the matrix of centered sums, row by row.
FASTENCODE_HD long long moments_row(long long series, long long i, long long j) { return series + i * (i + 1) / 2 + j; }

FASTENCODE_HD double moments_mean(double first, double sum_a, double n) { return first + sum_a / n; }

FASTENCODE_HD double moments_center(double sum_ab, double sum_a, double sum_b, double n) { return sum_ab - sum_a * sum_b / n; }

// A centered sum of squares cannot be negative; NaN fails the comparison and stays.
FASTENCODE_HD double moments_square(double sum_aa, double sum_a, double n) {
    double s = moments_center(sum_aa, sum_a, sum_a, n);
    return s < 0.0 ? 0.0 : s;
}

#endif
