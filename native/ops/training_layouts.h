// Layouts in which training's products read their sides, and the memory of one piece of work.
//
// A product takes its left side as rows of pairs of neighbouring values, and its right side as "pairs": 32-bit
// elements of two values that follow each other along the sum.  Included after vector_avx512.h.
#pragma once
#include <cstring>
#include <vector>

#include "ops/training.h"

namespace octavo {
namespace {

inline int round_up(int count, int step) { return parts(count, step) * step; }

inline void store_bfloat(Bfloat* p, F a) { _mm256_storeu_si256((__m256i*)p, (__m256i)_mm512_cvtneps_pbh(a.v)); }

// out[column][row] = in[row][column] of 16 x 16 elements of 32 bits.
inline void transpose_block(const std::uint32_t* in, std::ptrdiff_t in_stride, std::uint32_t* out,
                            std::ptrdiff_t out_stride) {
  __m512i a[16], b[16];
  for (int i = 0; i < 16; ++i) a[i] = _mm512_loadu_si512(in + i * in_stride);
  for (int i = 0; i < 16; i += 2) {
    b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
  }
  for (int i = 0; i < 16; i += 4)
    for (int j = 0; j < 2; ++j) {
      a[i + 2 * j] = _mm512_unpacklo_epi64(b[i + j], b[i + j + 2]);
      a[i + 2 * j + 1] = _mm512_unpackhi_epi64(b[i + j], b[i + j + 2]);
    }
  for (int i = 0; i < 4; ++i) {  // a[4 g + i]: column i + 4 lane of rows 4 g to 4 g + 3
    const __m512i x = _mm512_shuffle_i32x4(a[i], a[4 + i], 0x88), y = _mm512_shuffle_i32x4(a[i], a[4 + i], 0xdd);
    const __m512i z = _mm512_shuffle_i32x4(a[8 + i], a[12 + i], 0x88), w = _mm512_shuffle_i32x4(a[8 + i], a[12 + i], 0xdd);
    _mm512_storeu_si512(out + i * out_stride, _mm512_shuffle_i32x4(x, z, 0x88));
    _mm512_storeu_si512(out + (i + 4) * out_stride, _mm512_shuffle_i32x4(y, w, 0x88));
    _mm512_storeu_si512(out + (i + 8) * out_stride, _mm512_shuffle_i32x4(x, z, 0xdd));
    _mm512_storeu_si512(out + (i + 12) * out_stride, _mm512_shuffle_i32x4(y, w, 0xdd));
  }
}

// out[columns][rows] = in[rows][columns], both counts multiples of 16.
inline void transpose(const std::uint32_t* in, std::ptrdiff_t in_stride, int rows, int columns, std::uint32_t* out,
                      std::ptrdiff_t out_stride) {
  for (int r = 0; r < rows; r += 16)
    for (int c = 0; c < columns; c += 16)
      transpose_block(in + r * in_stride + c, in_stride, out + c * out_stride + r, out_stride);
}

// rows [tokens][D] of one head -> [padded][D], zeros after the last.
inline void copy_rows(const Bfloat* in, std::ptrdiff_t stride, int tokens, int padded, int width, Bfloat* out) {
  for (int t = 0; t < tokens; ++t) std::memcpy(out + std::size_t(t) * width, in + t * stride, 2 * width);
  std::memset(out + std::size_t(tokens) * width, 0, std::size_t(padded - tokens) * width * 2);
}

// [padded][D] -> [D/2][padded] elements of (value 2i, value 2i + 1): the right side of a product with its transpose.
inline void pair_columns(const Bfloat* in, int padded, int width, std::uint32_t* out) {
  transpose((const std::uint32_t*)in, width / 2, padded, width / 2, out, padded);
}

// rows x columns -> [rows/2] elements of (row 2j, row 2j + 1), `out_stride` apart; a missing last row is zero.
inline void pair_block(const Bfloat* in, std::ptrdiff_t stride, int rows, int columns, std::uint32_t* out,
                       std::ptrdiff_t out_stride) {
  // Neighbouring eights come to lie in one lane, so that unpacking a lane's halves gives columns in order.
  const __m512i spread = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
  for (int n = 0; n < rows; n += 2) {
    int c = 0;
    for (; c + 32 <= columns; c += 32) {
      const __m512i first = _mm512_permutexvar_epi64(spread, _mm512_loadu_si512(in + n * stride + c));
      const __m512i second = n + 1 < rows ? _mm512_permutexvar_epi64(spread, _mm512_loadu_si512(in + (n + 1) * stride + c))
                                          : _mm512_setzero_si512();
      _mm512_storeu_si512(out + n / 2 * out_stride + c, _mm512_unpacklo_epi16(first, second));
      _mm512_storeu_si512(out + n / 2 * out_stride + c + 16, _mm512_unpackhi_epi16(first, second));
    }
    for (; c < columns; c += 16) {
      const __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)(in + n * stride + c)));
      const __m512i high = n + 1 < rows
          ? _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)(in + (n + 1) * stride + c))) : _mm512_setzero_si512();
      _mm512_storeu_si512(out + n / 2 * out_stride + c, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
    }
  }
}

// [padded][D] -> [padded/2][D] elements of (row 2j, row 2j + 1).
inline void pair_rows(const Bfloat* in, int padded, int width, std::uint32_t* out) {
  pair_block(in, width, padded, width, out, width);
}

// Brings rows from memory that are needed soon.
inline void prefetch_rows(const Bfloat* in, std::ptrdiff_t stride, int begin, int end, int columns) {
  for (int n = begin; n < end; ++n)
    for (int c = 0; c < columns; c += 32) _mm_prefetch((const char*)(in + n * stride + c), _MM_HINT_T1);
}

// Values that are needed soon, asked for a few lines at a time: many at once would hold up what is read now, and short
// stretches of many rows are nothing that a processor would foresee.
class Ahead {
 public:
  Ahead() = default;
  Ahead(const Bfloat* start, std::ptrdiff_t stride, int rows, int columns)
      : row_(start), stride_(stride), width_((columns + 31) / 32), left_(rows * width_) {}
  int lines() const { return left_; }
  void ask(int lines) {
    for (lines = std::min(lines, left_); lines > 0; --lines, --left_) {
      _mm_prefetch((const char*)(row_ + 32 * line_), _MM_HINT_T1);
      if (++line_ == width_) line_ = 0, row_ += stride_;
    }
  }

 private:
  const Bfloat* row_ = nullptr;
  std::ptrdiff_t stride_ = 0;
  int width_ = 0, left_ = 0, line_ = 0;
};

// Memory of one thread, kept for the next piece.
class Scratch {
 public:
  void begin(std::size_t bytes) {
    if (bytes > memory_.size()) memory_ = std::vector<std::uint8_t>(bytes);
    used_ = 0;
  }
  template <class T>
  T* take(std::size_t count) {
    std::uint8_t* start = memory_.data() + used_;
    start += (64 - std::uintptr_t(start) % 64) % 64;
    used_ = std::size_t(start - memory_.data()) + count * sizeof(T);
    return (T*)start;
  }

 private:
  std::vector<std::uint8_t> memory_;
  std::size_t used_ = 0;
};
thread_local Scratch scratch;

// What one tile of a product with a weight reads and writes: left[R][2 pairs] right[pairs][columns] and then
// low[R][2 low_pairs] right[..], kept in float32 or written out.
struct ProductTile {
  const Bfloat* left;
  std::ptrdiff_t left_stride;
  const std::uint32_t* right;  // [pairs, then low_pairs, each filled up to kSumPairs][kProductPanel]
  int pairs;
  const Bfloat* low;
  std::ptrdiff_t low_stride;
  int low_pairs;
  const float* start;  // what sums begin with; or null
  std::ptrdiff_t start_stride;
  float* partial;  // where they are kept
  std::ptrdiff_t partial_stride;
  bool last;
  Bfloat* out;
  std::ptrdiff_t out_stride;
  std::uint8_t* space;  // of product_space bytes
  Ahead *rows_ahead, *weight_ahead;  // what is asked for beside this tile, and how many lines of it
  int rows_lines, weight_lines;
  // Of products in bytes: the left side's codes, a scale for each group of them, and pairs of columns that are kept.
  const std::uint8_t* codes = nullptr;
  std::ptrdiff_t codes_stride = 0;
  const float* scales = nullptr;
  const Bfloat* beside = nullptr;
  int beside_pairs = 0;
};

}  // namespace
}  // namespace octavo
