// One build of the tile loop (docs/solver.md, 4). moments_cpu.hpp includes it once for each kind of processor: it has no guard.
//
//     for each block of rows, for each strip of voxels:
//         unpack:  float or double to double, relative to the first row, into a block that stays in the cache
//         pairs:   sums of products, as many at once as there are registers
//     at the end of the rows: means and centered sums
//
// A voxel's result does not depend on its place, whatever the compiler fuses: a strip that is not full is padded and goes through
// the same instructions as any other. (With AVX2, sums of products are fused explicitly; elsewhere the compiler decides.)
// Products in float32 would take half the arithmetic; bench/micro_moments.py measures the digits that they lose.

namespace MOMENTS_BUILD {

#ifdef MOMENTS_AVX2
MOMENTS_INLINE moments_vec widen(const float *p) { return (moments_vec)_mm256_cvtps_pd(_mm_loadu_ps(p)); }
MOMENTS_INLINE moments_vec widen(const double *p) { return (moments_vec)_mm256_loadu_pd(p); }
MOMENTS_INLINE moments_vec spread(double x) { return (moments_vec)_mm256_set1_pd(x); }
MOMENTS_INLINE void add_product(moments_vec *sum, moments_vec a, moments_vec b) {
    *sum = (moments_vec)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)*sum);
}
#else
template <typename T> MOMENTS_INLINE moments_vec widen(const T *p) {
    double x[MOMENTS_GROUP];
    moments_vec out;
    for (int l = 0; l < MOMENTS_GROUP; ++l) x[l] = (double)p[l];
    std::memcpy(&out, x, sizeof out);
    return out;
}
MOMENTS_INLINE moments_vec spread(double x) {
    const double all[MOMENTS_GROUP] = {x, x, x, x};
    return widen(all);
}
MOMENTS_INLINE void add_product(moments_vec *sum, const moments_vec &a, const moments_vec &b) { *sum += a * b; }
#endif

// Prefetches the cache lines of the next strip, a series at a time, while the pairs of one strip are summed. Rows lie pages
// apart, and the processor's own prefetching does not cross pages.
template <typename T> struct Ahead {
    const MomentsTile<T> &tile;
    std::ptrdiff_t t, w, i, line;
    const char *address;
    std::ptrdiff_t hop;

    MOMENTS_TARGET void advance() {
        const std::ptrdiff_t lines = MOMENTS_LANES * (std::ptrdiff_t)sizeof(T) / 64;
        if (i > tile.k) {
            hop = 0;
            return;
        }
        hop = tile.step(i) * (std::ptrdiff_t)sizeof(T);
        address = (const char *)(tile.series(i) + tile.row(t) * tile.step(i) + w) + 64 * line;
        if (++line == lines) {
            line = 0;
            ++i;
        }
    }
};

// Sums of x_i x_j over the rows of a block, for the A series i from i0 on and the B series j from j0 on. `packed` is (series,
// groups, block, group).
template <int A, int B, typename T>
MOMENTS_INLINE void rectangle(const double *packed, std::ptrdiff_t rows, double *sums, Ahead<T> &ahead, std::ptrdiff_t i0,
                              std::ptrdiff_t j0) {
    const std::ptrdiff_t one = MOMENTS_LANES * MOMENTS_BLOCK;
    const double *left = packed + i0 * one, *right = packed + j0 * one;
    moments_vec s[A * B];
    for (int m = 0; m < A * B; ++m) s[m] = spread(0.0);
    ahead.advance();
    const char *address = ahead.address;
    const std::ptrdiff_t hop = ahead.hop;
    for (const double *end = left + rows * MOMENTS_GROUP; left < end; left += MOMENTS_GROUP, right += MOMENTS_GROUP) {
        MOMENTS_PREFETCH(address);
        address += hop;
        moments_vec y[B];
        for (int b = 0; b < B; ++b) y[b] = *(const moments_vec *)(right + b * one);
        for (int a = 0; a < A; ++a) {
            const moments_vec x = *(const moments_vec *)(left + a * one);
            for (int b = 0; b < B; ++b) add_product(&s[a * B + b], x, y[b]);
        }
    }
    for (int a = 0; a < A; ++a)
        for (int b = 0; b < B; ++b)
            *(moments_vec *)(sums + moments_row(0, i0 + a, j0 + b) * MOMENTS_GROUP) += s[a * B + b];
}

// Sums of x_i x_j over the rows of a block, for all pairs j <= i among the A series from i0 on.
template <int A, typename T>
MOMENTS_INLINE void triangle(const double *packed, std::ptrdiff_t rows, double *sums, Ahead<T> &ahead, std::ptrdiff_t i0) {
    const std::ptrdiff_t one = MOMENTS_LANES * MOMENTS_BLOCK;
    const double *left = packed + i0 * one;
    moments_vec s[A * (A + 1) / 2];
    for (int m = 0; m < A * (A + 1) / 2; ++m) s[m] = spread(0.0);
    ahead.advance();
    const char *address = ahead.address;
    const std::ptrdiff_t hop = ahead.hop;
    for (const double *end = left + rows * MOMENTS_GROUP; left < end; left += MOMENTS_GROUP) {
        MOMENTS_PREFETCH(address);
        address += hop;
        moments_vec x[A];
        for (int a = 0; a < A; ++a) x[a] = *(const moments_vec *)(left + a * one);
        for (int a = 0; a < A; ++a)
            for (int b = 0; b <= a; ++b) add_product(&s[a * (a + 1) / 2 + b], x[a], x[b]);
    }
    for (int a = 0; a < A; ++a)
        for (int b = 0; b <= a; ++b)
            *(moments_vec *)(sums + moments_row(0, i0 + a, i0 + b) * MOMENTS_GROUP) += s[a * (a + 1) / 2 + b];
}

// All pairs of one group of voxels: ten to twelve sums at a time, which is what sixteen registers hold.
template <typename T>
MOMENTS_INLINE void pairs(const double *packed, std::ptrdiff_t rows, std::ptrdiff_t series, double *sums, Ahead<T> &ahead) {
    std::ptrdiff_t i = series % 4;
    switch (i) {
        case 1: triangle<1>(packed, rows, sums, ahead, 0); break;
        case 2: triangle<2>(packed, rows, sums, ahead, 0); break;
        case 3: triangle<3>(packed, rows, sums, ahead, 0); break;
    }
    for (; i < series; i += 4) {
        triangle<4>(packed, rows, sums, ahead, i);
        std::ptrdiff_t j = 0;
        for (; j + 3 <= i && i - j != 4; j += 3) rectangle<4, 3>(packed, rows, sums, ahead, i, j);
        for (; j + 2 <= i; j += 2) rectangle<4, 2>(packed, rows, sums, ahead, i, j);
        if (j < i) rectangle<4, 1>(packed, rows, sums, ahead, i, j);
    }
}

// Sums of x_i x_0 and x_i x_i only, for A series from i0 on.
template <int A, typename T>
MOMENTS_INLINE void uncrossed(const double *packed, std::ptrdiff_t rows, double *sums, Ahead<T> &ahead, std::ptrdiff_t i0) {
    const std::ptrdiff_t one = MOMENTS_LANES * MOMENTS_BLOCK;
    const double *target = packed, *left = packed + i0 * one;
    moments_vec s[2 * A];
    for (int m = 0; m < 2 * A; ++m) s[m] = spread(0.0);
    ahead.advance();
    const char *address = ahead.address;
    const std::ptrdiff_t hop = ahead.hop;
    for (const double *end = left + rows * MOMENTS_GROUP; left < end; left += MOMENTS_GROUP, target += MOMENTS_GROUP) {
        MOMENTS_PREFETCH(address);
        address += hop;
        const moments_vec y = *(const moments_vec *)target;
        for (int a = 0; a < A; ++a) {
            const moments_vec x = *(const moments_vec *)(left + a * one);
            add_product(&s[2 * a], x, y);
            add_product(&s[2 * a + 1], x, x);
        }
    }
    for (int a = 0; a < A; ++a) {
        *(moments_vec *)(sums + moments_row(0, i0 + a, 0) * MOMENTS_GROUP) += s[2 * a];
        if (i0 + a > 0) *(moments_vec *)(sums + moments_row(0, i0 + a, i0 + a) * MOMENTS_GROUP) += s[2 * a + 1];
    }
}

// The same as `pairs` without products of different predictions.
template <typename T>
MOMENTS_INLINE void no_pairs(const double *packed, std::ptrdiff_t rows, std::ptrdiff_t series, double *sums, Ahead<T> &ahead) {
    std::ptrdiff_t i = 0;
    for (; i + 4 <= series; i += 4) uncrossed<4>(packed, rows, sums, ahead, i);
    for (; i < series; ++i) uncrossed<1>(packed, rows, sums, ahead, i);
}

// One series of one strip, rows t to t + rows: relative to its first row, times the roots of the weights, and its plain sum.
template <bool WEIGHTED, typename T>
MOMENTS_INLINE void unpack(const MomentsTile<T> &tile, std::ptrdiff_t i, std::ptrdiff_t w, std::ptrdiff_t width, std::ptrdiff_t t,
                           std::ptrdiff_t rows, double *packed, double *sums, std::ptrdiff_t sums_step) {
    const int groups = (int)(MOMENTS_LANES / MOMENTS_GROUP);
    const T *base = tile.series(i) + w;
    const std::ptrdiff_t step = tile.step(i);
    T part[MOMENTS_LANES] = {};
    moments_vec first[groups], sum[groups];
    const T *p = base + tile.row(0) * step;
    if (width < MOMENTS_LANES) p = (const T *)std::memcpy(part, p, width * sizeof(T));
    for (int g = 0; g < groups; ++g) {
        first[g] = widen(p + g * MOMENTS_GROUP);
        sum[g] = spread(0.0);
    }
    for (std::ptrdiff_t r = 0; r < rows; ++r, packed += MOMENTS_GROUP) {
        p = base + (WEIGHTED ? tile.rows[t + r] : t + r) * step;
        if (width < MOMENTS_LANES) p = (const T *)std::memcpy(part, p, width * sizeof(T));
        for (int g = 0; g < groups; ++g) {
            moments_vec x = widen(p + g * MOMENTS_GROUP) - first[g];
            if (WEIGHTED) {
                add_product(&sum[g], spread(tile.weight[t + r]), x);
                x = x * spread(tile.root[t + r]);
            } else {
                sum[g] += x;
            }
            *(moments_vec *)(packed + g * MOMENTS_BLOCK * MOMENTS_GROUP) = x;
        }
    }
    for (int g = 0; g < groups; ++g) *(moments_vec *)(sums + g * sums_step) += sum[g];
}

// Means and centered sums of one group of voxels, of which `width` exist.
template <typename T>
MOMENTS_INLINE void finish(const MomentsTile<T> &tile, std::ptrdiff_t w, std::ptrdiff_t width, const double *sums) {
    const std::ptrdiff_t series = tile.k + 1;
    const moments_vec *sum = (const moments_vec *)sums, *product = sum + series, n = spread(tile.total);
    const std::size_t bytes = width * sizeof(double);
    double *out = tile.out + series * tile.v + w, x[MOMENTS_GROUP];
    for (std::ptrdiff_t i = 0; i < series; ++i) {
        const T *p = tile.series(i) + tile.row(0) * tile.step(i) + w;
        T first[MOMENTS_GROUP] = {};
        std::memcpy(first, p, width * sizeof(T));
        const moments_vec offset = sum[i] / n, mean = widen(first) + offset;
        std::memcpy(tile.out + i * tile.v + w, &mean, bytes);
        for (std::ptrdiff_t j = 0; j <= i; ++j, ++product, out += tile.v) {
            const moments_vec center = tile.crossed || j == 0 || i == j ? MOMENTS_CENTER(*product, offset, sum[j]) : spread(0.0);
            if (i == j) {
                std::memcpy(x, &center, sizeof x);
                for (int l = 0; l < MOMENTS_GROUP; ++l) x[l] = moments_square(x[l]);
                std::memcpy(out, x, bytes);
            } else if (width == MOMENTS_GROUP) {
                std::memcpy(out, &center, sizeof center);
            } else {
                std::memcpy(out, &center, bytes);
            }
        }
    }
}

template <bool WEIGHTED, typename T> MOMENTS_INLINE void walk(const MomentsTile<T> &tile) {
    const std::ptrdiff_t series = tile.k + 1, m = (std::ptrdiff_t)moments_row(series, series, 0), group = MOMENTS_GROUP;
    const std::ptrdiff_t sums_step = m * group;
    const std::ptrdiff_t open = moments_open_strips(tile.k, tile.v) * MOMENTS_LANES;
    double *packed = tile.scratch, *all = packed + MOMENTS_LANES * series * MOMENTS_BLOCK;  // sums: (voxels / group, m, group)
    for (std::ptrdiff_t begin = 0; begin < tile.v; begin += open) {
        const std::ptrdiff_t end = tile.v - begin < open ? tile.v : begin + open;
        std::memset(all, 0, sizeof(double) * m * ((end - begin + MOMENTS_LANES - 1) / MOMENTS_LANES * MOMENTS_LANES));
        for (std::ptrdiff_t t = 0; t < tile.n; t += MOMENTS_BLOCK) {
            const std::ptrdiff_t rows = tile.n - t < MOMENTS_BLOCK ? tile.n - t : MOMENTS_BLOCK;
            for (std::ptrdiff_t w = begin; w < end; w += MOMENTS_LANES) {
                double *sums = all + (w - begin) * m;
                const std::ptrdiff_t width = end - w < MOMENTS_LANES ? end - w : MOMENTS_LANES;
                for (std::ptrdiff_t i = 0; i < series; ++i)
                    unpack<WEIGHTED>(tile, i, w, width, t, rows, packed + i * MOMENTS_LANES * MOMENTS_BLOCK, sums + i * group,
                                     sums_step);
                const bool last = w + MOMENTS_LANES >= end;
                const std::ptrdiff_t next = last && t + MOMENTS_BLOCK < tile.n ? t + MOMENTS_BLOCK : t;
                Ahead<T> ahead = {tile, next, last ? begin : w + MOMENTS_LANES, 0, 0, (const char *)tile.target, 0};
                for (std::ptrdiff_t g = 0; g < MOMENTS_LANES / group; ++g) {
                    double *to = sums + g * sums_step + series * group;
                    if (tile.crossed) pairs(packed + g * MOMENTS_BLOCK * group, rows, series, to, ahead);
                    else no_pairs(packed + g * MOMENTS_BLOCK * group, rows, series, to, ahead);
                }
            }
        }
        for (std::ptrdiff_t w = begin; w < end; w += group)
            finish(tile, w, end - w < group ? end - w : group, all + (w - begin) * m);
    }
}

template <typename T> MOMENTS_TARGET static void run(const MomentsTile<T> &tile) {
    if (tile.rows)
        walk<true>(tile);
    else
        walk<false>(tile);
}

}  // namespace MOMENTS_BUILD

#undef MOMENTS_BUILD
#undef MOMENTS_INLINE
#undef MOMENTS_TARGET
