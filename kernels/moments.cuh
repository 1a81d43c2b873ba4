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

// With `offset_a` = sum_a / n, what the mean of a is beyond its first value. A macro, because it serves vectors too: a function
// of vectors would not be compiled for the processor that its caller is for.
#define MOMENTS_CENTER(sum_ab, offset_a, sum_b) ((sum_ab) - (offset_a) * (sum_b))

// A centered sum of squares cannot be negative; NaN fails the comparison and stays.
FASTENCODE_HD double moments_square(double sum) { return sum < 0.0 ? 0.0 : sum; }

#endif
