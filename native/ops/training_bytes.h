// Products in bytes with frozen weights: both sides are rounded to 8 bits, with a scale for each 64 terms of a sum, and
// multiplied by AVX512_VNNI, twice as fast as in bfloat16.  The gradient of an input loses nothing by that: scales of 64
// terms leave an error as large as bfloat16's own.  Inputs have columns that are many times larger than the rest; these
// few are kept in bfloat16 (Dettmers et al. 2022, LLM.int8()), as a thin product like LoRA's.
// The slow twin: `plain_byte_product` of src/octavo/layers/byte_product.py.  Included after ops/training_product.h.
#pragma once
#include "ops/training_product.h"
#include "support/half.h"

namespace octavo {
namespace {

constexpr int kByteQuads = kByteGroup / 4;  // 32-bit elements of four codes
// Of a group of a panel: the quads, what sums begin with (left codes are 128 too large), and scales.
constexpr int kGroupLines = kByteQuads + 2;
constexpr int kByteRows = 4;    // whose sums of bytes and of floats fill the registers
constexpr int kNearGroups = 5;  // of a panel, which stay in the first cache for all rows of a tile

inline __m512 from_bfloat(__m256i a) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(a), 16)); }

// 64 values to 64 codes; the scale they have.  Magnitudes are compared as bits, so that what is no number is the largest.
inline __m512i bytes_of(__m512i low, __m512i high, float& scale) {
  const __m512i magnitude = _mm512_set1_epi16(0x7fff);
  const __m512i most = _mm512_max_epu16(_mm512_and_si512(low, magnitude), _mm512_and_si512(high, magnitude));
  const __m256i half = _mm256_max_epu16(_mm512_castsi512_si256(most), _mm512_extracti64x4_epi64(most, 1));
  const __m128i eight = _mm_max_epu16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
  // The largest of eight is what the smallest of their complements is not.
  const __m128i complement = _mm_minpos_epu16(_mm_xor_si128(eight, _mm_set1_epi16(-1)));
  const float largest = float_from_bfloat(std::uint16_t(~_mm_extract_epi16(complement, 0)));
  scale = largest / 127.0f;
  const __m512 factor = _mm512_set1_ps(largest == 0.0f ? 0.0f : 127.0f / largest);
  const auto codes = [&](__m256i values) { return _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(from_bfloat(values), factor))); };
  const __m256i first = _mm256_set_m128i(codes(_mm512_extracti64x4_epi64(low, 1)), codes(_mm512_castsi512_si256(low)));
  const __m256i second = _mm256_set_m128i(codes(_mm512_extracti64x4_epi64(high, 1)), codes(_mm512_castsi512_si256(high)));
  return _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1);
}

// --- the left side -----------------------------------------------------------------------------------------------
// Sums of squares of each column over the rows of a piece.
void training_column_energies(const TrainingBytes& task, int piece) {
  float* sums = task.energies + std::size_t(piece) * task.width;
  std::memset(sums, 0, std::size_t(task.width) * 4);
  for (int n = first_row(task.rows, piece); n < first_row(task.rows, piece + 1); ++n)
    for (int k = 0; k < task.width; k += 16) {
      const F x = load_bfloat(task.in + n * task.stride + k);
      store(sums + k, multiply_add(x, x, load(sums + k)));
    }
}

// Codes of 128 and more for numbers of 0 and more: products of bytes take their left side without sign.
void training_quantize(const TrainingBytes& task, int piece) {
  const __m512i shift = _mm512_set1_epi8(-128);
  const int groups = task.width / kByteGroup;
  for (int n = first_row(task.rows, piece); n < first_row(task.rows, piece + 1); ++n) {
    const Bfloat* row = task.in + n * task.stride;
    for (int g = 0; g < groups; ++g) {
      __m512i low = _mm512_loadu_si512(row + g * kByteGroup), high = _mm512_loadu_si512(row + g * kByteGroup + 32);
      if (task.kept) {
        low = _mm512_and_si512(low, _mm512_loadu_si512(task.rest + g * kByteGroup));
        high = _mm512_and_si512(high, _mm512_loadu_si512(task.rest + g * kByteGroup + 32));
      }
      const __m512i codes = bytes_of(low, high, task.scales[std::size_t(n) * groups + g]);
      _mm512_storeu_si512(task.codes + (std::size_t(n) * groups + g) * kByteGroup, _mm512_xor_si512(codes, shift));
    }
    for (int j = 0; j < task.kept; ++j) task.beside[std::size_t(n) * task.kept + j] = row[task.columns[j]];
  }
}

// --- the right side ----------------------------------------------------------------------------------------------
// What sums begin with, once the quads of a group are there.
inline void begin_sums(std::uint32_t* group, int columns) {
  for (int c = 0; c < columns; c += 16) {
    __m512i sum = _mm512_setzero_si512();
    for (int q = 0; q < kByteQuads; ++q)
      sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi8(-128), _mm512_loadu_si512(group + q * kProductPanel + c));
    _mm512_storeu_si512(group + kByteQuads * kProductPanel + c, _mm512_sub_epi32(_mm512_setzero_si512(), sum));
  }
}

// in [columns][64]
inline void pack_group_of_rows(const Bfloat* in, std::ptrdiff_t stride, int columns, std::uint32_t* group) {
  float* scales = (float*)(group + (kByteQuads + 1) * kProductPanel);
  alignas(64) std::uint32_t codes[16 * kByteQuads];
  for (int c = 0; c < columns; c += 16) {
    for (int i = 0; i < 16; ++i) {
      const Bfloat* row = in + (c + i) * stride;
      _mm512_store_si512(codes + i * kByteQuads, bytes_of(_mm512_loadu_si512(row), _mm512_loadu_si512(row + 32), scales[c + i]));
    }
    transpose_block(codes, kByteQuads, group + c, kProductPanel);
  }
}

// in [64][columns]
inline void pack_group_of_columns(const Bfloat* in, std::ptrdiff_t stride, int columns, std::uint32_t* group) {
  for (int c = 0; c < columns; c += 16, in += 16) {
    const auto row = [&](int k) { return _mm256_loadu_si256((const __m256i*)(in + k * stride)); };
    __m256i most = _mm256_setzero_si256();
    for (int k = 0; k < kByteGroup; ++k) most = _mm256_max_epu16(most, _mm256_and_si256(row(k), _mm256_set1_epi16(0x7fff)));
    const __m512 largest = from_bfloat(most), limit = _mm512_set1_ps(127.0f);
    _mm512_storeu_ps((float*)(group + (kByteQuads + 1) * kProductPanel) + c, _mm512_div_ps(largest, limit));
    const __mmask16 any = _mm512_cmp_ps_mask(largest, _mm512_setzero_ps(), _CMP_NEQ_UQ);
    const __m512 factor = _mm512_maskz_div_ps(any, limit, largest);
    const auto code = [&](int k) { return _mm512_cvtps_epi32(_mm512_mul_ps(from_bfloat(row(k)), factor)); };
    const __m512i byte = _mm512_set1_epi32(255);
    for (int q = 0; q < kByteQuads; ++q) {
      const __m512i first = _mm512_and_si512(code(4 * q), byte);
      const __m512i second = _mm512_slli_epi32(_mm512_and_si512(code(4 * q + 1), byte), 8);
      const __m512i third = _mm512_slli_epi32(_mm512_and_si512(code(4 * q + 2), byte), 16);
      const __m512i fourth = _mm512_slli_epi32(code(4 * q + 3), 24);
      _mm512_storeu_si512(group + q * kProductPanel + c,
                          _mm512_or_si512(_mm512_or_si512(first, second), _mm512_or_si512(third, fourth)));
    }
  }
}

// The values of row `row` of a weight in some columns.
inline void row_values(const TrainingWeight& weight, int row, const std::int32_t* columns, int count, Bfloat* out) {
  if (weight.values) {
    for (int j = 0; j < count; ++j) out[j] = weight.values[row * weight.stride + columns[j]];
    return;
  }
  const TrainingNf4* part = weight.nf4;
  while (row >= part->end) ++part;
  const std::size_t begin = std::size_t(row - part->begin) * weight.columns;
  for (int j = 0; j < count; ++j) {
    const std::size_t at = begin + columns[j];
    const std::uint8_t code = part->codes[at / 2];
    const float value = kNf4Levels[at % 2 ? code & 15 : code >> 4] * part->scale(at / kByteGroup);
    out[j] = bfloat_from_float(value);
  }
}

// Pairs of the columns that are kept: rows [c, c + columns) of the weight.
inline void pack_kept(const TrainingProduct& task, int c, int columns, std::uint32_t* out) {
  const TrainingBytes& bytes = *task.bytes;
  alignas(64) std::uint32_t row[kMostKept / 2];
  for (int i = 0; i < columns; ++i) {
    row_values(task.weight, c + i, bytes.columns, bytes.kept, (Bfloat*)row);
    for (int p = 0; p < bytes.kept / 2; ++p) out[p * kProductPanel + i] = row[p];
  }
}

// --- tiles -------------------------------------------------------------------------------------------------------
// Sums have the type that they are counted in: as __m512i GCC keeps each in two registers, or in memory.
// totals[R][columns of 16] += codes[R][64], rows `stride` apart, times the quads of a group.
template <int R, int columns>
inline void add_quads(__v16si (&totals)[R][columns], const std::uint8_t* codes, std::ptrdiff_t stride, const std::uint32_t* quads) {
  for (int q = 0; q < kByteQuads; ++q) {
    __m512i b[columns];
    OCTAVO_UNROLL for (int c = 0; c < columns; ++c) b[c] = _mm512_load_si512(quads + q * kProductPanel + 16 * c);
    OCTAVO_UNROLL for (int r = 0; r < R; ++r) {
      std::int32_t four;
      std::memcpy(&four, codes + r * stride + 4 * q, 4);
      const __m512i a = _mm512_set1_epi32(four);
      OCTAVO_UNROLL for (int c = 0; c < columns; ++c) {
        totals[r][c] = (__v16si)_mm512_dpbusd_epi32((__m512i)totals[r][c], a, b[c]);
      }
    }
  }
}

// sums[R][kProductPanel] += the products of some groups; scales of codes are `scales_stride` apart.
template <int R, int columns>
__attribute__((noinline)) void add_groups(const std::uint8_t* codes, std::ptrdiff_t stride, const float* scales,
                                          std::ptrdiff_t scales_stride, const std::uint32_t* group, int groups, float* kept) {
  __m512 sums[R][columns];
  OCTAVO_UNROLL for (int r = 0; r < R; ++r)
    OCTAVO_UNROLL for (int c = 0; c < columns; ++c) sums[r][c] = _mm512_load_ps(kept + r * kProductPanel + 16 * c);
  for (int g = 0; g < groups; ++g, codes += kByteGroup, ++scales, group += kGroupLines * kProductPanel) {
    __v16si totals[R][columns];
    OCTAVO_UNROLL for (int r = 0; r < R; ++r)
      OCTAVO_UNROLL for (int c = 0; c < columns; ++c)
        totals[r][c] = (__v16si)_mm512_load_si512(group + kByteQuads * kProductPanel + 16 * c);
    add_quads<R, columns>(totals, codes, stride, group);
    const float* weights = (const float*)(group + (kByteQuads + 1) * kProductPanel);
    OCTAVO_UNROLL for (int r = 0; r < R; ++r) {
      const __m512 scale = _mm512_set1_ps(scales[r * scales_stride]);
      OCTAVO_UNROLL for (int c = 0; c < columns; ++c) {
        const __m512 both = _mm512_mul_ps(scale, _mm512_load_ps(weights + 16 * c));
        sums[r][c] = _mm512_fmadd_ps(_mm512_cvtepi32_ps((__m512i)totals[r][c]), both, sums[r][c]);
      }
    }
  }
  OCTAVO_UNROLL for (int r = 0; r < R; ++r)
    OCTAVO_UNROLL for (int c = 0; c < columns; ++c) _mm512_store_ps(kept + r * kProductPanel + 16 * c, sums[r][c]);
}

// Adds what is in bfloat16 to sums [R][kProductPanel], and keeps or writes them.  Apart, since GCC finds registers for one
// loop of products at a time.
template <int R, int columns>
__attribute__((noinline)) void finish_bytes(const ProductTile& t, const std::uint32_t* low, const float* kept) {
  __m512 sums[R][columns];
  OCTAVO_UNROLL for (int r = 0; r < R; ++r)
    OCTAVO_UNROLL for (int c = 0; c < columns; ++c) sums[r][c] = _mm512_load_ps(kept + r * kProductPanel + 16 * c);
  if (t.last && t.low_pairs) add_products<R, columns>(sums, t.low, t.low_stride, low, kProductPanel, t.low_pairs);
  if (t.last && t.beside_pairs)
    add_products<R, columns>(sums, t.beside, 2 * t.beside_pairs, low + std::size_t(t.low_pairs) * kProductPanel, kProductPanel,
                             t.beside_pairs);
  finish_tile<R, columns>(t, sums);
}

template <int R, int columns>
inline void byte_panel_tile(const ProductTile& t) {
  alignas(64) float sums[R * kProductPanel];
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < 16 * columns; c += 16)
      _mm512_store_ps(sums + r * kProductPanel + c, t.start ? _mm512_loadu_ps(t.start + r * t.start_stride + c) : _mm512_setzero_ps());
  const int groups = t.pairs * 2 / kByteGroup;
  const std::uint32_t* right = t.right;
  for (int g = 0, near; g < groups; g += near, right += near * kGroupLines * kProductPanel) {
    near = std::min(kNearGroups, groups - g);
    for (int r = 0; r < R; r += kByteRows)
      add_groups<std::min(R, kByteRows), columns>(t.codes + r * t.codes_stride + g * kByteGroup, t.codes_stride,
                                                  t.scales + r * t.codes_stride / kByteGroup + g, t.codes_stride / kByteGroup, right, near,
                                                  sums + r * kProductPanel);
  }
  finish_bytes<R, columns>(t, right, sums);
}

// How a product has its sides in bytes; PairSides of ops/training_product.h has them in pairs.
struct ByteSides {
  static constexpr int kInner = 2 * kProductInner;
  static std::size_t lines(int terms) { return std::size_t(terms / kByteGroup) * kGroupLines; }
  static std::size_t low_lines(const TrainingProduct& task) { return std::size_t(task.rank + task.bytes->kept) / 2; }

  static void pack(const Bfloat* in, std::ptrdiff_t stride, bool transposed, int terms, int columns, std::uint32_t* out) {
    for (int k = 0; k < terms; k += kByteGroup, out += kGroupLines * kProductPanel) {
      if (transposed) pack_group_of_rows(in + k, stride, columns, out);
      else pack_group_of_columns(in + k * stride, stride, columns, out);
      begin_sums(out, columns);
    }
  }
  static void pack_low(const TrainingProduct& task, int c, int columns, std::uint32_t* out) {
    if (task.rank) pack_low_pairs(task, c, columns, out);
    if (task.bytes->kept) pack_kept(task, c, columns, out + std::size_t(task.rank / 2) * kProductPanel);
  }

  static Ahead left_ahead(const TrainingProduct& task, int n, int k, int rows, int terms) {
    return {(const Bfloat*)(task.bytes->codes + std::size_t(n) * task.inner + k), task.inner / 2, rows, terms / 2};
  }
  static void place_left(const TrainingProduct& task, int n, int k, ProductTile& tile) {
    const TrainingBytes& bytes = *task.bytes;
    tile.codes = bytes.codes + std::size_t(n) * task.inner + k;
    tile.codes_stride = task.inner;
    tile.scales = bytes.scales + (std::size_t(n) * task.inner + k) / kByteGroup;
    tile.beside = bytes.beside + std::size_t(n) * bytes.kept;
    tile.beside_pairs = bytes.kept / 2;
  }
  template <int R>
  static void panel(const ProductTile& tile, int columns) {
    if (columns == 48) return byte_panel_tile<R, 3>(tile);
    if (columns == 32) return byte_panel_tile<R, 2>(tile);
    byte_panel_tile<R, 1>(tile);
  }
  static int rows(const ProductTile& tile, int rows, int columns, Products&) {
    tile.rows_ahead->ask(tile.rows_lines);
    tile.weight_ahead->ask(tile.weight_lines);
    if (rows >= kProductTile) return panel<kProductTile>(tile, columns), kProductTile;
    return panel<1>(tile, columns), 1;
  }
};

}  // namespace
}  // namespace octavo
