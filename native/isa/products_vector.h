// Training's products in registers of 16 sums (AVX512_BF16).  isa/products_tiles.h defines the same names for tiles.
// Included after ops/training_layouts.h.
#pragma once
#include "ops/training_layouts.h"

namespace octavo {
namespace {

constexpr int kSumPairs = 1;         // sums are over multiples of so many pairs
constexpr int kRowsAtOnce = 4;       // rows of `product`
constexpr int kProductTile = 8, kProductPanel = 48;  // rows and columns whose sums fill the registers
constexpr int kProductInner = 768;   // terms of a sum between two visits of memory
constexpr int kGradientTile = 6, kGradientRest = 1;  // outputs of a strip: 6 x 4 registers of sums
constexpr int kGradientPanel = 64;   // inputs
constexpr int kGradientRows = 256;   // that are summed in registers

struct Products {  // what a piece that multiplies holds; nothing here
  void finish() {}
};

// sums[R][columns of 16] += left[R][2 pairs] right[pairs][16 columns].  Strides in elements of each array.
template <int R, int columns>
inline void add_products(__m512 (&sums)[R][columns], const Bfloat* left, std::ptrdiff_t left_stride,
                         const std::uint32_t* right, std::ptrdiff_t right_stride, int pairs) {
  for (int p = 0; p < pairs; ++p) {
    __m512i b[columns];
    OCTAVO_UNROLL for (int c = 0; c < columns; ++c) b[c] = _mm512_loadu_si512(right + p * right_stride + 16 * c);
    OCTAVO_UNROLL for (int r = 0; r < R; ++r) {
      std::int32_t two;
      std::memcpy(&two, left + r * left_stride + 2 * p, 4);
      const __m512bh a = (__m512bh)_mm512_set1_epi32(two);
      OCTAVO_UNROLL for (int c = 0; c < columns; ++c) sums[r][c] = _mm512_dpbf16_ps(sums[r][c], a, (__m512bh)b[c]);
    }
  }
}

// out[R][16 columns] (+)= left[R][2 pairs] right[pairs][16 columns].  Strides in elements of each array.
template <int R, int columns>
inline void product_tile(const Bfloat* left, std::ptrdiff_t left_stride, const std::uint32_t* right,
                         std::ptrdiff_t right_stride, int pairs, float* out, std::ptrdiff_t out_stride, bool add) {
  __m512 sums[R][columns];
  OCTAVO_UNROLL for (int r = 0; r < R; ++r)
    OCTAVO_UNROLL for (int c = 0; c < columns; ++c)
      sums[r][c] = add ? _mm512_loadu_ps(out + r * out_stride + 16 * c) : _mm512_setzero_ps();
  add_products<R, columns>(sums, left, left_stride, right, right_stride, pairs);
  OCTAVO_UNROLL for (int r = 0; r < R; ++r)
    OCTAVO_UNROLL for (int c = 0; c < columns; ++c) _mm512_storeu_ps(out + r * out_stride + 16 * c, sums[r][c]);
}

// The same for kRowsAtOnce rows and any multiple of 16 columns.
inline void product(const Bfloat* left, std::ptrdiff_t left_stride, const std::uint32_t* right,
                    std::ptrdiff_t right_stride, int pairs, int columns, float* out, std::ptrdiff_t out_stride,
                    bool add) {
  int c = 0;
  for (; c + 64 <= columns; c += 64)
    product_tile<kRowsAtOnce, 4>(left, left_stride, right + c, right_stride, pairs, out + c, out_stride, add);
  for (; c < columns; c += 16)
    product_tile<kRowsAtOnce, 1>(left, left_stride, right + c, right_stride, pairs, out + c, out_stride, add);
}

// --- products with weights (ops/training_product.h) --------------------------------------------------------------
// Keeps sums for the rest of their terms, or writes them.
template <int R, int columns>
inline void finish_tile(const ProductTile& t, const __m512 (&sums)[R][columns]) {
  OCTAVO_UNROLL for (int r = 0; r < R; ++r)
    OCTAVO_UNROLL for (int c = 0; c < columns; ++c) {
      if (t.last) store_bfloat(t.out + r * t.out_stride + 16 * c, {sums[r][c]});
      else _mm512_storeu_ps(t.partial + r * t.partial_stride + 16 * c, sums[r][c]);
    }
}

template <int R, int columns>
inline void product_panel_tile(const ProductTile& t) {
  __m512 sums[R][columns];
  OCTAVO_UNROLL for (int r = 0; r < R; ++r)
    OCTAVO_UNROLL for (int c = 0; c < columns; ++c)
      sums[r][c] = t.start ? _mm512_loadu_ps(t.start + r * t.start_stride + 16 * c) : _mm512_setzero_ps();
  add_products<R, columns>(sums, t.left, t.left_stride, t.right, kProductPanel, t.pairs);
  if (t.last)
    add_products<R, columns>(sums, t.low, t.low_stride, t.right + std::size_t(t.pairs) * kProductPanel, kProductPanel, t.low_pairs);
  finish_tile<R, columns>(t, sums);
}

template <int R>
inline void product_panel(const ProductTile& tile, int columns) {
  if (columns == 48) return product_panel_tile<R, 3>(tile);
  if (columns == 32) return product_panel_tile<R, 2>(tile);
  product_panel_tile<R, 1>(tile);
}

inline std::size_t product_space(int) { return 0; }

// As many of the rows as are done at once; their number.
inline int product_rows(const ProductTile& tile, int rows, int columns, Products&) {
  tile.rows_ahead->ask(tile.rows_lines);
  tile.weight_ahead->ask(tile.weight_lines);
  if (rows >= kProductTile) return product_panel<kProductTile>(tile, columns), kProductTile;
  return product_panel<1>(tile, columns), 1;
}

// --- gradients of weights (ops/training_weights.h) ---------------------------------------------------------------
// out[R][16 columns] (+)= sum over pairs of left[pair][R] right[pair][16 columns].
template <int R, int columns>
inline void gradient_tile(const std::uint32_t* left, const std::uint32_t* right, int pairs, float* out,
                          std::ptrdiff_t out_stride, bool add) {
  __m512 sums[R][columns];
  OCTAVO_UNROLL for (int r = 0; r < R; ++r)
    OCTAVO_UNROLL for (int c = 0; c < columns; ++c) {
      sums[r][c] = _mm512_setzero_ps();
      prefetch(out + r * out_stride + 16 * c);  // it is needed when the sums are complete
    }
  for (int p = 0; p < pairs; ++p) {
    __m512i b[columns];
    OCTAVO_UNROLL for (int c = 0; c < columns; ++c) b[c] = _mm512_loadu_si512(right + p * kGradientPanel + 16 * c);
    OCTAVO_UNROLL for (int r = 0; r < R; ++r) {
      const __m512bh a = (__m512bh)_mm512_set1_epi32(std::int32_t(left[p * R + r]));
      OCTAVO_UNROLL for (int c = 0; c < columns; ++c) sums[r][c] = _mm512_dpbf16_ps(sums[r][c], a, (__m512bh)b[c]);
    }
  }
  OCTAVO_UNROLL for (int r = 0; r < R; ++r)
    OCTAVO_UNROLL for (int c = 0; c < columns; ++c) {
      float* p = out + r * out_stride + 16 * c;
      _mm512_storeu_ps(p, add ? _mm512_add_ps(_mm512_loadu_ps(p), sums[r][c]) : sums[r][c]);
    }
}

constexpr int kGradientSpace = 0;  // floats that `gradient_rows` wants for itself

// For R outputs of a strip and the inputs of a panel: out[R][columns] (+)= left^T right.
template <int R>
inline void gradient_rows(const std::uint32_t* left, const std::uint32_t* right, int pairs, int columns, float* out,
                          std::ptrdiff_t out_stride, bool add, Products&, float*) {
  if (columns == kGradientPanel) return gradient_tile<R, 4>(left, right, pairs, out, out_stride, add);
  for (int c = 0; c < columns; c += 16) gradient_tile<R, 1>(left, right + c, pairs, out + c, out_stride, add);
}

// Rows in pairs and strips of kGradientTile columns, [strip][rows/2][kGradientTile]; what is left over is strips of one.
inline void pair_strips(const Bfloat* in, std::ptrdiff_t stride, int rows, int columns, std::uint32_t* space,
                        std::uint32_t* out) {
  const int pairs = (rows + 1) / 2;
  for (int p = 0; p < pairs; ++p) {
    pair_block(in + 2 * p * stride, stride, std::min(2, rows - 2 * p), columns, space, columns);
    int c = 0;
    for (; c + kGradientTile <= columns; c += kGradientTile)
      std::memcpy(out + std::size_t(c) * pairs + p * kGradientTile, space + c, kGradientTile * 4);
    for (; c < columns; ++c) out[std::size_t(c) * pairs + p] = space[c];
  }
}

}  // namespace
}  // namespace octavo
