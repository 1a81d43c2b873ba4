// Float32 matrix products on a processor's matrix tiles (Intel AMX), which multiply bfloat16 only, at some twenty times the rate
// (docs/solver.md, 5 and 8).
//
// A float32 number is the sum of three bfloat16 numbers, x = x0 + x1 + x2. Each part is the rounding of the remainder, and holds
// eight bits of the significand. With three parts of both factors the products x0y0, x0y1, x1y0, x0y2, x1y1, x2y0 are summed;
// those left out add up to less than 2 * 2^-24 |x||y|: as exact as float32 arithmetic. With two parts x0y0, x0y1, x1y0 are
// summed; those left out add up to less than 3 * 2^-16 |x||y|.
//
//     for each strip of columns, for each block of the inner axis:
//         split the block of the right factor into parts, in the order in which tiles are loaded
//         for each block of rows:
//             split it into parts
//             for each 32 x 32 square of the result: sum the small products, then the large ones, in float32; add to the result
//
// A value of the result depends on its row and its column only: squares that are not full are padded.
// Parts below 1e-38 are lost, because tiles flush subnormal numbers to zero.
#ifndef FASTENCODE_PRODUCT_TILES_HPP
#define FASTENCODE_PRODUCT_TILES_HPP

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(FASTENCODE_NO_VECTORS)
#if __has_include(<amxbf16intrin.h>) && __has_include(<avx512bf16intrin.h>)
#define FASTENCODE_TILES
#endif
#endif

typedef std::ptrdiff_t product_int;

// The diag(g_j) of `shrunk` (see product.pyx): segments of directions, each with its curves, and the mix.
struct ProductSegments {
    const product_int *ends, *counts;  // (pieces + 1), (pieces)
    product_int pieces, nodes;
    const float *curves, *mix;  // curves one after another; (nodes, products), or null where the curves are the nodes

    product_int products() const {
        product_int sum = 0;
        for (product_int s = 0; s < pieces; ++s) sum += counts[s];
        return sum;
    }
    // Steps of 32 directions: of all segments, and of all their products.
    product_int steps(bool each) const {
        product_int sum = 0;
        for (product_int s = 0; s < pieces; ++s) sum += (ends[s + 1] - ends[s] + 31) / 32 * (each ? counts[s] : 1);
        return sum;
    }
};

// Inner values, rows and columns of a block. On one core, blocks of 64 to 256 and strips of 512 to 1024 columns were no faster.
static const product_int PRODUCT_INNER = 128, PRODUCT_ROWS = 160, PRODUCT_COLUMNS = 768;

// Bytes of scratch that a product needs; it must start at a multiple of 64.
static inline product_int product_scratch(product_int parts) {
    return PRODUCT_INNER * (PRODUCT_ROWS + PRODUCT_COLUMNS) * 2 * parts;
}

// Rows of `shrunk` whose squares are made before they are mixed; floats from one square to the next. That is no power of two: all
// squares would compete for the same lines of the first-level cache then.
static const product_int SHRUNK_ROWS = 128, SHRUNK_SQUARE = 32 * 32 + 16;

// Bytes of scratch that `shrunk` needs for m rows; it must start at a multiple of 64.
static inline product_int shrunk_scratch(const ProductSegments &segments, product_int m, product_int parts) {
    const product_int squares = segments.products() * SHRUNK_ROWS / 32 * SHRUNK_SQUARE * 4;
    return 2 * parts * 512 * (2 * segments.steps(true) + (m + 31) / 32 * 2 * segments.steps(false)) + squares;
}

#ifdef FASTENCODE_TILES
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PRODUCT_TARGET __attribute__((target("amx-tile,amx-bf16,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")))
#define PRODUCT_INLINE PRODUCT_TARGET __attribute__((always_inline)) static inline

// Whether this processor and this system have matrix tiles. Asks the system for permission, which holds for the process.
static inline bool product_has_tiles() {
    unsigned a, b, c, d, low, high;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    const unsigned avx512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31, amx = 1u << 22 | 1u << 24;
    if ((b & avx512) != avx512 || (d & amx) != amx) return false;
    if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || !(a & 1u << 5)) return false;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & 1u << 27)) return false;  // the system saves more than SSE's registers
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    const unsigned saved = 0xe6 | 1u << 17 | 1u << 18;
    if ((low & saved) != saved) return false;
    const long request = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, request, tile_data) == 0;
}

// Sixteen rows of 64 bytes each.
static const product_int PRODUCT_TILE = 512, PRODUCT_SIDE = 16, PRODUCT_STEP = 32;

PRODUCT_INLINE void product_configure() {
    struct {
        std::uint8_t palette, start, reserved[14];
        std::uint16_t bytes[16];
        std::uint8_t rows[16];
    } shape = {};
    shape.palette = 1;
    for (int i = 0; i < 8; ++i) shape.bytes[i] = 64, shape.rows[i] = 16;
    _tile_loadconfig(&shape);
}

PRODUCT_INLINE __mmask16 product_first(product_int count) {
    return count >= 16 ? 0xffff : count <= 0 ? 0 : (__mmask16)((1u << count) - 1);
}

// The next part of sixteen numbers, as bfloat16 in the low halves; subtracts it from the numbers.
PRODUCT_INLINE __m512i product_part(__m512 *x) {
    const __m512i part = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(*x));
    *x = _mm512_sub_ps(*x, _mm512_castsi512_ps(_mm512_slli_epi32(part, 16)));
    return part;
}

// Two rows of sixteen numbers, as pairs that lie along the inner axis.
PRODUCT_INLINE __m512i product_pairs(__m512 *even, __m512 *odd) {
    const __m512i low = product_part(even);
    return _mm512_or_si512(low, _mm512_slli_epi32(product_part(odd), 16));
}

// Both layouts: (squares of 16 rows or columns, steps of 32 along the inner axis, parts, tile).

// Rows that are contiguous.
template <int PARTS>
PRODUCT_TARGET static void product_split_rows(const float *left, product_int step, product_int m, product_int k,
                                              std::uint16_t *out) {
    for (product_int i0 = 0; i0 < m; i0 += PRODUCT_SIDE)
        for (product_int k0 = 0; k0 < k; k0 += PRODUCT_STEP, out += PARTS * PRODUCT_TILE)
            for (product_int i = 0; i < PRODUCT_SIDE; ++i)
                for (product_int half = 0; half < PRODUCT_STEP; half += 16) {
                    const __mmask16 mask = i0 + i < m ? product_first(k - k0 - half) : 0;
                    __m512 x = _mm512_maskz_loadu_ps(mask, left + (i0 + i) * step + k0 + half);
                    for (int part = 0; part < PARTS; ++part)
                        _mm256_store_si256((__m256i *)(out + part * PRODUCT_TILE + i * PRODUCT_STEP + half),
                                           _mm512_cvtepi32_epi16(product_part(&x)));
                }
}

// Columns of the right factor, whose rows are contiguous; with a curve, each row times its value. With `TURNED`, rows of a left
// factor whose columns are contiguous.
template <int PARTS, bool TURNED>
PRODUCT_TARGET static void product_split_columns(const float *right, product_int step, const float *curve, product_int k,
                                                 product_int n, std::uint16_t *out) {
    const __m512i across = _mm512_mullo_epi32(_mm512_set1_epi32(16), _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
                                                                                       13, 14, 15));
    alignas(64) std::uint32_t block[PARTS * PRODUCT_TILE / 2];
    for (product_int j0 = 0; j0 < n; j0 += PRODUCT_SIDE) {
        const __mmask16 mask = product_first(n - j0);
        for (product_int k0 = 0; k0 < k; k0 += PRODUCT_STEP, out += PARTS * PRODUCT_TILE) {
            std::uint32_t *to = TURNED ? block : (std::uint32_t *)out;
            for (product_int pair = 0; pair < 16; ++pair) {
                const product_int row = k0 + 2 * pair;
                __m512 even = _mm512_maskz_loadu_ps(row < k ? mask : 0, right + row * step + j0);
                __m512 odd = _mm512_maskz_loadu_ps(row + 1 < k ? mask : 0, right + (row + 1) * step + j0);
                if (curve) {
                    even = _mm512_mul_ps(even, _mm512_set1_ps(row < k ? curve[row] : 0.0f));
                    odd = _mm512_mul_ps(odd, _mm512_set1_ps(row + 1 < k ? curve[row + 1] : 0.0f));
                }
                for (int part = 0; part < PARTS; ++part)
                    _mm512_store_si512(to + part * PRODUCT_TILE / 2 + pair * 16, product_pairs(&even, &odd));
            }
            if (TURNED)
                for (product_int line = 0; line < PARTS * 16; ++line) {
                    const std::uint32_t *from = block + line / 16 * PRODUCT_TILE / 2 + line % 16;
                    _mm512_store_si512((std::uint32_t *)out + line * 16, _mm512_i32gather_epi32(across, from, 4));
                }
        }
    }
}

#define PRODUCT_LEFT(part)                                              \
    _tile_loadd(4, a + (t * PARTS + part) * PRODUCT_TILE, 64);          \
    _tile_loadd(5, a + down + (t * PARTS + part) * PRODUCT_TILE, 64);
#define PRODUCT_RIGHT(part)                                             \
    _tile_loadd(6, b + (t * PARTS + part) * PRODUCT_TILE, 64);          \
    _tile_loadd(7, b + down + (t * PARTS + part) * PRODUCT_TILE, 64);
#define PRODUCT_MULTIPLY      \
    _tile_dpbf16ps(0, 4, 6);  \
    _tile_dpbf16ps(1, 4, 7);  \
    _tile_dpbf16ps(2, 5, 6);  \
    _tile_dpbf16ps(3, 5, 7);

// A square of 32 x 32. The small products of the block are summed first, so they are not rounded to the size of large ones.
template <int PARTS>
PRODUCT_INLINE void product_square(const std::uint16_t *a, const std::uint16_t *b, product_int steps, float *out) {
    const product_int down = steps * PARTS * PRODUCT_TILE;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (product_int t = 0; t < steps; ++t) {
        PRODUCT_LEFT(0) PRODUCT_RIGHT(PARTS - 1) PRODUCT_MULTIPLY
        if (PARTS == 3) {
            PRODUCT_RIGHT(1) PRODUCT_MULTIPLY
            PRODUCT_LEFT(1) PRODUCT_MULTIPLY
        }
        PRODUCT_RIGHT(0)
        if (PARTS == 3) {
            PRODUCT_MULTIPLY
        }
        PRODUCT_LEFT(PARTS - 1) PRODUCT_MULTIPLY
    }
    for (product_int t = 0; t < steps; ++t) {
        PRODUCT_LEFT(0) PRODUCT_RIGHT(0) PRODUCT_MULTIPLY
    }
    _tile_stored(0, out, 128);
    _tile_stored(1, out + 16, 128);
    _tile_stored(2, out + 512, 128);
    _tile_stored(3, out + 528, 128);
}

// out (m x n) = left (m x k) @ right (k x n). Steps count values. Where `turned`, the columns of the left factor are contiguous,
// and `left_step` is the step from one column to the next.
template <int PARTS>
PRODUCT_TARGET static void product_run(const float *left, product_int left_step, bool turned, const float *right,
                                       product_int right_step, float *out, product_int out_step, product_int m, product_int k,
                                       product_int n, std::uint16_t *scratch) {
    alignas(64) float square[32 * 32];
    std::uint16_t *const a = scratch + PRODUCT_INNER * PRODUCT_COLUMNS * PARTS, *const b = scratch;
    product_configure();
    for (product_int n0 = 0; n0 < n; n0 += PRODUCT_COLUMNS)
        for (product_int k0 = 0; k0 < k; k0 += PRODUCT_INNER) {
            const product_int wide = n - n0 < PRODUCT_COLUMNS ? n - n0 : PRODUCT_COLUMNS;
            const product_int deep = k - k0 < PRODUCT_INNER ? k - k0 : PRODUCT_INNER;
            const product_int steps = (deep + PRODUCT_STEP - 1) / PRODUCT_STEP, size = steps * PARTS * PRODUCT_TILE;
            product_split_columns<PARTS, false>(right + k0 * right_step + n0, right_step, nullptr, deep, wide, b);
            if ((wide + 15) / 16 % 2) std::memset(b + (wide + 15) / 16 * size, 0, size * 2);
            for (product_int m0 = 0; m0 < m; m0 += PRODUCT_ROWS) {
                const product_int high = m - m0 < PRODUCT_ROWS ? m - m0 : PRODUCT_ROWS;
                if (turned) product_split_columns<PARTS, true>(left + k0 * left_step + m0, left_step, nullptr, deep, high, a);
                else product_split_rows<PARTS>(left + m0 * left_step + k0, left_step, high, deep, a);
                if ((high + 15) / 16 % 2) std::memset(a + (high + 15) / 16 * size, 0, size * 2);
                for (product_int i = 0; i < high; i += 32)
                    for (product_int j = 0; j < wide; j += 32) {
                        product_square<PARTS>(a + i / 16 * size, b + j / 16 * size, steps, square);
                        const __mmask16 first = product_first(wide - j), second = product_first(wide - j - 16);
                        float *to = out + (m0 + i) * out_step + n0 + j;
                        for (product_int r = 0; r < 32 && i + r < high; ++r, to += out_step) {
                            __m512 x = _mm512_load_ps(square + 32 * r), y = _mm512_load_ps(square + 32 * r + 16);
                            if (k0) {
                                x = _mm512_add_ps(x, _mm512_maskz_loadu_ps(first, to));
                                y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(second, to + 16));
                            }
                            _mm512_mask_storeu_ps(to, first, x);
                            _mm512_mask_storeu_ps(to + 16, second, y);
                        }
                    }
            }
        }
    _tile_release();
}

static inline void product_tiles(const float *left, product_int left_step, bool turned, const float *right, product_int right_step,
                                 float *out, product_int out_step, product_int m, product_int k, product_int n, int parts,
                                 std::uint16_t *scratch) {
    if (parts == 3) product_run<3>(left, left_step, turned, right, right_step, out, out_step, m, k, n, scratch);
    else product_run<2>(left, left_step, turned, right, right_step, out, out_step, m, k, n, scratch);
}

// Sixteen values of a square at each of up to 24 nodes j: out_j = sum over products q of mix_jq square_q.
template <int NODES>
PRODUCT_INLINE void shrunk_mix(const float *square, const float *mix, product_int products, __m512 *out) {
#pragma GCC unroll 24
    for (int j = 0; j < NODES; ++j) out[j] = _mm512_setzero_ps();
    for (product_int q = 0; q < products; ++q) {
        const __m512 x = _mm512_loadu_ps(square + q * SHRUNK_SQUARE);
#pragma GCC unroll 24
        for (int j = 0; j < NODES; ++j) out[j] = _mm512_fmadd_ps(_mm512_set1_ps(mix[j * products + q]), x, out[j]);
    }
}

// All nodes of one square, of which `high` rows and `wide` columns exist. Whole lines are written past the caches: they do not
// fit there, and reading them in before overwriting them took a quarter of the time.
template <int NODES>
PRODUCT_TARGET static void shrunk_nodes(const float *squares, const float *mix, product_int products, float *out,
                                        product_int node_step, product_int row_step, product_int high, product_int wide) {
    __m512 made[NODES];
    const bool lines = wide >= 32 && ((std::size_t)out | 4 * (std::size_t)node_step | 4 * (std::size_t)row_step) % 64 == 0;
    for (product_int r = 0; r < 32 && r < high; ++r)
        for (product_int half = 0; half < 32 && half < wide; half += 16) {
            shrunk_mix<NODES>(squares + 32 * r + half, mix, products, made);
            float *to = out + r * row_step + half;
#pragma GCC unroll 24
            for (int j = 0; j < NODES; ++j, to += node_step) {
                if (lines) _mm512_stream_ps(to, made[j]);
                else _mm512_mask_storeu_ps(to, product_first(wide - half), made[j]);
            }
        }
}

PRODUCT_TARGET static inline void shrunk_finish(const ProductSegments &segments, const float *squares, product_int products,
                                                float *out, product_int node_step, product_int row_step, product_int high,
                                                product_int wide) {
    if (!segments.mix) {
        for (product_int q = 0; q < products; ++q)
            for (product_int r = 0; r < 32 && r < high; ++r)
                std::memcpy(out + q * node_step + r * row_step, squares + q * SHRUNK_SQUARE + 32 * r,
                            sizeof(float) * (wide < 32 ? wide : 32));
        return;
    }
    product_int j = 0;
#define SHRUNK_NODES(count)                                                                                              \
    for (; j + count <= segments.nodes; j += count)                                                                     \
        shrunk_nodes<count>(squares, segments.mix + j * products, products, out + j * node_step, node_step, row_step, high, wide);
    SHRUNK_NODES(20)
    SHRUNK_NODES(10)
    SHRUNK_NODES(5)
    SHRUNK_NODES(2)
    SHRUNK_NODES(1)
#undef SHRUNK_NODES
}

// out_j (m x n) = rows (m x r) @ diag(g_j) @ inner (r x n) at all nodes j. All rows are split first. Then, 32 columns at a time,
// the coordinates times every curve are split, and the squares of all products are made and mixed.
template <int PARTS>
PRODUCT_TARGET static void shrunk_run(const ProductSegments &segments, const float *rows, product_int rows_step, const float *inner,
                                      product_int inner_step, float *out, product_int node_step, product_int row_step,
                                      product_int m, product_int n, std::uint16_t *scratch) {
    const product_int products = segments.products(), squares_of_rows = (m + 31) / 32 * 2, unit = PARTS * PRODUCT_TILE;
    std::uint16_t *const a = scratch, *const b = a + squares_of_rows * segments.steps(false) * unit;
    float *const squares = (float *)(b + 2 * segments.steps(true) * unit);
    product_configure();
    std::uint16_t *place = a;  // (segments, squares of rows, steps, parts, tile)
    for (product_int s = 0; s < segments.pieces; ++s) {
        const product_int begin = segments.ends[s], deep = segments.ends[s + 1] - begin, steps = (deep + 31) / 32;
        product_split_rows<PARTS>(rows + begin, rows_step, m, deep, place);
        if ((m + 15) / 16 % 2) std::memset(place + (m + 15) / 16 * steps * unit, 0, steps * unit * 2);
        place += squares_of_rows * steps * unit;
    }
    for (product_int n0 = 0; n0 < n; n0 += 32) {
        const product_int wide = n - n0 < 32 ? n - n0 : 32;
        const float *curve = segments.curves;
        place = b;
        for (product_int s = 0; s < segments.pieces; ++s) {
            const product_int begin = segments.ends[s], deep = segments.ends[s + 1] - begin, steps = (deep + 31) / 32;
            for (product_int q = 0; q < segments.counts[s]; ++q, curve += deep, place += 2 * steps * unit) {
                product_split_columns<PARTS, false>(inner + begin * inner_step + n0, inner_step, curve, deep, wide, place);
                if (wide <= 16) std::memset(place + steps * unit, 0, steps * unit * 2);
            }
        }
        for (product_int m0 = 0; m0 < m; m0 += SHRUNK_ROWS) {
            const std::uint16_t *left = a, *right = b;
            float *square = squares;
            for (product_int s = 0; s < segments.pieces; ++s) {
                const product_int steps = (segments.ends[s + 1] - segments.ends[s] + 31) / 32;
                for (product_int q = 0; q < segments.counts[s]; ++q, right += 2 * steps * unit, square += SHRUNK_SQUARE)
                    for (product_int i = m0; i < m && i < m0 + SHRUNK_ROWS; i += 32)
                        product_square<PARTS>(left + i / 16 * steps * unit, right, steps,
                                              square + (i - m0) / 32 * products * SHRUNK_SQUARE);
                left += squares_of_rows * steps * unit;
            }
            for (product_int i = m0; i < m && i < m0 + SHRUNK_ROWS; i += 32)
                shrunk_finish(segments, squares + (i - m0) / 32 * products * SHRUNK_SQUARE, products, out + i * row_step + n0,
                              node_step, row_step, m - i, wide);
        }
    }
    _mm_sfence();
    _tile_release();
}

static inline void shrunk_tiles(const ProductSegments &segments, const float *rows, product_int rows_step, const float *inner,
                                product_int inner_step, float *out, product_int node_step, product_int row_step, product_int m,
                                product_int n, int parts, std::uint16_t *scratch) {
    if (parts == 3) shrunk_run<3>(segments, rows, rows_step, inner, inner_step, out, node_step, row_step, m, n, scratch);
    else shrunk_run<2>(segments, rows, rows_step, inner, inner_step, out, node_step, row_step, m, n, scratch);
}

#else

static inline bool product_has_tiles() { return false; }

static inline void product_tiles(const float *, product_int, bool, const float *, product_int, float *, product_int, product_int,
                                 product_int, product_int, int, std::uint16_t *) {}

static inline void shrunk_tiles(const ProductSegments &, const float *, product_int, const float *, product_int, float *,
                                product_int, product_int, product_int, product_int, int, std::uint16_t *) {}

#endif
#endif
