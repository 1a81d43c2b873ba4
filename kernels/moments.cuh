// The scalar formulas of `moments`, shared by moments.pyx (as C++) and moments.cu (as CUDA). See docs/solver.md, 4 and 8.
//
// Every value is taken relative to the voxel's first row of positive weight. That row is a sample, so the sum of squares about it
// is at most (n + 1) times the centered one; with weights it is of that order unless the first weight is tiny. So one pass is
// enough, a huge common offset costs no digits, and the sums of a constant column are exactly zero. Sums are double whatever the
// input. With weights, n is their sum; rows of weight zero do not count.
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

// Centered sum of products: sum_ab - offset_a sum_b, where offset_a = sum_a / n is the mean of a minus its first value. It is a
// macro because it serves vectors too: a function of vectors would not be compiled for the processor of its caller.
#define MOMENTS_CENTER(sum_ab, offset_a, sum_b) ((sum_ab) - (offset_a) * (sum_b))

// A centered sum of squares cannot be negative; NaN fails the comparison and stays.
FASTENCODE_HD double moments_square(double sum) { return sum < 0.0 ? 0.0 : sum; }

#endif
