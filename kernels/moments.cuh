// The scalar maths of `moments`, shared by moments.pyx (as C++) and moments.cu (as CUDA): change it here and both twins change.
//
// Every value is taken relative to the voxel's first row. That row is one of the samples, so the sum of squares about it is
// at most (n + 1) times the centered one: one pass is enough, a huge common offset costs no digits, and a constant column
// comes out as exactly zero. Sums are kept in double whatever the input.
#ifndef FASTENCODE_MOMENTS_CUH
#define FASTENCODE_MOMENTS_CUH

#ifdef __CUDACC__
#define FASTENCODE_HD __host__ __device__ __forceinline__
#else
#define FASTENCODE_HD inline
#endif

// Rows of the result: mean of targets, mean of predictions, and the centered sums yy, pp, yp.
FASTENCODE_HD void moments_add(double y, double p, double *sy, double *sp, double *syy, double *spp, double *syp) {
    *sy += y;
    *sp += p;
    *syy += y * y;
    *spp += p * p;
    *syp += y * p;
}

FASTENCODE_HD double moments_center(double sum_ab, double sum_a, double sum_b, double n) { return sum_ab - sum_a * sum_b / n; }

// A centered sum of squares cannot be negative; NaN fails the comparison and stays.
FASTENCODE_HD double moments_square(double sum_aa, double sum_a, double n) {
    double s = moments_center(sum_aa, sum_a, sum_a, n);
    return s < 0.0 ? 0.0 : s;
}

#endif
