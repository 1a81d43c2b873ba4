// The tile loop of moments.pyx: its arguments, and the choice between two builds of moments_loop.hpp. The formulas are in
// docs/solver.md, 4.
//
// On x86-64 the loop is compiled twice, for AVX2 with FMA and for any processor. The choice is made at run time, so an ordinary
// wheel is fast without -march=native. (GCC's target_clones with "arch=haswell" would leave every AMD processor out.)
#ifndef FASTENCODE_MOMENTS_CPU_HPP
#define FASTENCODE_MOMENTS_CPU_HPP

#include <cstddef>
#include <cstring>

#include "moments.cuh"

// Four voxels side by side. Strips of sixteen are one line of the cache for float32, two for float64.
static const std::ptrdiff_t MOMENTS_GROUP = 4, MOMENTS_LANES = 16;
// Rows that are unpacked at once: with seven series they fit into a first-level cache of 32 KiB. 16 to 32 ran equally fast.
static const std::ptrdiff_t MOMENTS_BLOCK = 24;
// Bytes of sums: as many strips of voxels as fit share one pass over the rows.
static const std::ptrdiff_t MOMENTS_OPEN = 1024 * 1024;

#if defined(__GNUC__) && !defined(FASTENCODE_NO_VECTORS)
typedef double moments_vec __attribute__((vector_size(32), may_alias));
#define MOMENTS_PREFETCH(address) __builtin_prefetch(address)
#else
struct moments_vec {
    double x[4];
    moments_vec &operator+=(const moments_vec &b) {
        for (int l = 0; l < 4; ++l) x[l] += b.x[l];
        return *this;
    }
#define MOMENTS_OPERATOR(op)                                      \
    moments_vec operator op(const moments_vec &b) const {         \
        moments_vec out;                                          \
        for (int l = 0; l < 4; ++l) out.x[l] = x[l] op b.x[l];    \
        return out;                                               \
    }
    MOMENTS_OPERATOR(+)
    MOMENTS_OPERATOR(-)
    MOMENTS_OPERATOR(*)
    MOMENTS_OPERATOR(/)
};
#define MOMENTS_PREFETCH(address) ((void)(address))
#endif

// Steps count values, not bytes. With weights, `rows` numbers the n rows of positive weight, `weight` has their weights, and
// `root` the square roots of these; without, all three are null. `total` is the sum of the weights, or n.
template <typename T> struct MomentsTile {
    const T *target, *predicted;
    const std::ptrdiff_t *rows;
    const double *weight, *root;
    double total;
    std::ptrdiff_t k, n, v, target_step, node_step, row_step;
    double *scratch, *out;
    bool crossed;  // whether to sum products of different predictions

    const T *series(std::ptrdiff_t i) const { return i == 0 ? target : predicted + (i - 1) * node_step; }
    std::ptrdiff_t step(std::ptrdiff_t i) const { return i == 0 ? target_step : row_step; }
    std::ptrdiff_t row(std::ptrdiff_t t) const { return rows ? rows[t] : t; }
};

static inline std::ptrdiff_t moments_open_strips(std::ptrdiff_t k, std::ptrdiff_t v) {
    const std::ptrdiff_t strips = (v + MOMENTS_LANES - 1) / MOMENTS_LANES;
    const std::ptrdiff_t fit = MOMENTS_OPEN / (8 * MOMENTS_LANES * (std::ptrdiff_t)moments_row(k + 1, k + 1, 0));
    return fit < 1 ? 1 : fit < strips ? fit : strips;
}

// Doubles of scratch that a tile needs; it must start at a multiple of 32 bytes.
static inline std::ptrdiff_t moments_scratch(std::ptrdiff_t k, std::ptrdiff_t v) {
    return MOMENTS_LANES * ((k + 1) * MOMENTS_BLOCK + moments_open_strips(k, v) * (std::ptrdiff_t)moments_row(k + 1, k + 1, 0));
}

#define MOMENTS_BUILD moments_any
#define MOMENTS_INLINE static inline
#define MOMENTS_TARGET
#include "moments_loop.hpp"

#if defined(__GNUC__) && defined(__x86_64__) && !defined(FASTENCODE_NO_VECTORS)
#include <immintrin.h>
#define MOMENTS_AVX2
#define MOMENTS_BUILD moments_avx2
#define MOMENTS_TARGET __attribute__((target("avx2,fma")))
#define MOMENTS_INLINE MOMENTS_TARGET __attribute__((always_inline)) static inline
#include "moments_loop.hpp"
#endif

template <typename T> static inline void moments_run(const MomentsTile<T> &tile) {
#ifdef MOMENTS_AVX2
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return moments_avx2::run(tile);
#endif
    moments_any::run(tile);
}

template <typename T>
static inline void moments_tile(const T *target, const T *predicted, const std::ptrdiff_t *rows, const double *weight,
                                const double *root, double total, std::ptrdiff_t k, std::ptrdiff_t n, std::ptrdiff_t v,
                                std::ptrdiff_t target_step, std::ptrdiff_t node_step, std::ptrdiff_t row_step, double *scratch,
                                double *out, bool crossed) {
    moments_run(MomentsTile<T>{target, predicted, rows, weight, root, total, k, n, v, target_step, node_step, row_step, scratch,
                               out, crossed});
}

#endif
