// Training's products in tiles (AMX): 16 rows of 16 sums each, over 16 pairs at a time.  The same names as in
// isa/products_vector.h.  Sums are in float32, and in another order than there.  Included after ops/training_layouts.h.
//
// Tiles: 0 to 3 are sums of 32 rows and 32 columns, 4 and 5 the left side's rows, 6 and 7 the right side's columns.
#pragma once
#include "isa/tile_shapes.h"
#include "ops/training_layouts.h"

namespace octavo {
namespace {

constexpr int kSumPairs = 16;
constexpr int kRowsAtOnce = 32;
constexpr int kProductTile = 32, kProductPanel = 32;
constexpr int kProductInner = 640;
constexpr int kGradientTile = 32, kGradientRest = 16;
constexpr int kGradientPanel = 32;
constexpr int kGradientRows = 256;

// Sums [rows][kProductPanel] of a tile and what they become: with what is at `start` (or null) added, they are kept in
// float32, or rounded where `kept` is null.
struct WaitingSums {
  const float *sums, *start;
  std::ptrdiff_t start_stride;
  float* kept;
  Bfloat* rounded;
  std::ptrdiff_t stride;  // of either
  int rows, columns;
};

// What a piece that multiplies holds: besides the shapes, sums that wait.  They leave the unit through memory, which would
// stand still meanwhile; so they are written a few rows at a time beside the products of the next tile.
class Products {
 public:
  // Space for the sums of the next tile; `space` has room for those of two.
  float* sums(float* space) { return space + (second_ = !second_) * kProductTile * kProductPanel; }
  void wait(const WaitingSums& sums) { waiting_ = sums, written_ = 0; }
  void write(int until) {
    const WaitingSums& w = waiting_;
    int row = written_;
    written_ = until = std::min(until, w.rows);
    if (w.columns == kProductPanel && !w.kept && !w.start) {
      for (; row < until; ++row) store_pair(w.rounded + row * w.stride, load(w.sums + row * kProductPanel), load(w.sums + row * kProductPanel + 16));
      return;
    }
    for (; row < until; ++row)
      for (int c = 0; c < w.columns; c += 16) {
        F sum = load(w.sums + row * kProductPanel + c);
        if (w.start) sum = sum + load(w.start + row * w.start_stride + c);
        if (w.kept) store(w.kept + row * w.stride + c, sum);
        else store_bfloat(w.rounded + row * w.stride + c, sum);
      }
  }
  void finish() { write(waiting_.rows); }

 private:
  static void store_pair(Bfloat* to, F first, F second) { _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(second.v, first.v)); }

  TileShapes shapes_{kWholeTiles};
  bool second_ = false;
  WaitingSums waiting_{};
  int written_ = 0;
};

template <int R, int C>
inline __attribute__((always_inline)) void zero_sums() {
  _tile_zero(0);
  if constexpr (C > 1) _tile_zero(1);
  if constexpr (R > 1) _tile_zero(2);
  if constexpr (R > 1 && C > 1) _tile_zero(3);
}

template <int R, int C>
inline __attribute__((always_inline)) void load_sums(const float* from, std::ptrdiff_t stride) {
  settle_memory();
  _tile_loadd(0, from, 4 * stride);
  if constexpr (C > 1) _tile_loadd(1, from + 16, 4 * stride);
  if constexpr (R > 1) _tile_loadd(2, from + 16 * stride, 4 * stride);
  if constexpr (R > 1 && C > 1) _tile_loadd(3, from + 16 * stride + 16, 4 * stride);
}

template <int R, int C>
inline __attribute__((always_inline)) void store_sums(float* to, std::ptrdiff_t stride) {
  _tile_stored(0, to, 4 * stride);
  if constexpr (C > 1) _tile_stored(1, to + 16, 4 * stride);
  if constexpr (R > 1) _tile_stored(2, to + 16 * stride, 4 * stride);
  if constexpr (R > 1 && C > 1) _tile_stored(3, to + 16 * stride + 16, 4 * stride);
  settle_memory();
}

// Which side is read once, and shall leave the first cache to the other, which the next tile meets again.
enum class Streamed { none, rows, columns };

// sums += left[16 R][2 pairs] right[pairs][16 C].  Strides in elements of each array.  `beside(p)` is done beside each
// step of kSumPairs.
template <int R, int C, Streamed streamed = Streamed::none, class Beside>
inline __attribute__((always_inline)) void add_products(const Bfloat* left, std::ptrdiff_t left_stride,
                                                        const std::uint32_t* right, std::ptrdiff_t right_stride, int pairs,
                                                        Beside&& beside) {
  settle_memory();
  for (int p = 0; p < pairs; p += kSumPairs) {
    const Bfloat* rows = left + 2 * p;
    const std::uint32_t* columns = right + p * right_stride;
    if constexpr (streamed == Streamed::columns) _tile_stream_loadd(6, columns, 4 * right_stride);
    else _tile_loadd(6, columns, 4 * right_stride);
    if constexpr (streamed == Streamed::rows) _tile_stream_loadd(4, rows, 2 * left_stride);
    else _tile_loadd(4, rows, 2 * left_stride);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (R > 1) {
      if constexpr (streamed == Streamed::rows) _tile_stream_loadd(5, rows + 16 * left_stride, 2 * left_stride);
      else _tile_loadd(5, rows + 16 * left_stride, 2 * left_stride);
      _tile_dpbf16ps(2, 5, 6);
    }
    if constexpr (C > 1) {
      if constexpr (streamed == Streamed::columns) _tile_stream_loadd(7, columns + 16, 4 * right_stride);
      else _tile_loadd(7, columns + 16, 4 * right_stride);
      _tile_dpbf16ps(1, 4, 7);
      if constexpr (R > 1) _tile_dpbf16ps(3, 5, 7);
    }
    beside(p);
  }
}

template <int R, int C>
inline void product_tile(const Bfloat* left, std::ptrdiff_t left_stride, const std::uint32_t* right,
                         std::ptrdiff_t right_stride, int pairs, float* out, std::ptrdiff_t out_stride, bool add) {
  if (add) load_sums<R, C>(out, out_stride);
  else zero_sums<R, C>();
  add_products<R, C>(left, left_stride, right, right_stride, pairs, [](int) {});
  store_sums<R, C>(out, out_stride);
}

// out[kRowsAtOnce][columns] (+)= left[kRowsAtOnce][2 pairs] right[pairs][columns]; any multiple of 16 columns.
inline void product(const Bfloat* left, std::ptrdiff_t left_stride, const std::uint32_t* right,
                    std::ptrdiff_t right_stride, int pairs, int columns, float* out, std::ptrdiff_t out_stride,
                    bool add) {
  int c = 0;
  for (; c + 32 <= columns; c += 32)
    product_tile<2, 2>(left, left_stride, right + c, right_stride, pairs, out + c, out_stride, add);
  if (c < columns) product_tile<2, 1>(left, left_stride, right + c, right_stride, pairs, out + c, out_stride, add);
}

// --- products with weights (ops/training_product.h) --------------------------------------------------------------
// Bytes that `product_rows` wants for itself: padded rows of both left sides, and the sums of two tiles.
inline std::size_t product_space(int rank) {
  return std::size_t(kProductTile) * ((kProductInner + round_up(rank, 32)) * 2 + 2 * kProductPanel * 4) + 64;
}

// A left side whose rows and sums are whole: the same, or a copy with zeros after the last.
inline const Bfloat* whole_left(const Bfloat* in, std::ptrdiff_t& stride, int rows, int pairs, Bfloat* space) {
  if (rows == kProductTile && pairs % kSumPairs == 0) return in;
  const int width = 2 * round_up(pairs, kSumPairs);
  for (int r = 0; r < kProductTile; ++r) {
    const int kept = r < rows ? 2 * pairs : 0;
    if (kept) std::memcpy(space + std::size_t(r) * width, in + r * stride, std::size_t(kept) * 2);
    std::memset(space + std::size_t(r) * width + kept, 0, std::size_t(width - kept) * 2);
  }
  stride = width;
  return space;
}

template <int C>
inline void product_panel_tile(const ProductTile& t, int rows, Products& products) {
  Bfloat* space = (Bfloat*)((float*)t.space + 2 * kProductTile * kProductPanel);
  std::ptrdiff_t stride = t.left_stride;
  const Bfloat* left = whole_left(t.left, stride, rows, t.pairs, space);
  const int pairs = round_up(t.pairs, kSumPairs), steps = pairs / kSumPairs;
  const int rows_lines = parts(t.rows_lines, steps), weight_lines = parts(t.weight_lines, steps);
  zero_sums<2, C>();
  add_products<2, C, Streamed::columns>(left, stride, t.right, kProductPanel, pairs, [&](int p) {
    products.write((p + kSumPairs) * kProductTile / pairs);
    t.rows_ahead->ask(rows_lines);
    t.weight_ahead->ask(weight_lines);
    if (!t.last) return;
    for (int row = p * rows / pairs; row < (p + kSumPairs) * rows / pairs; ++row)
      __builtin_prefetch(t.out + row * t.out_stride, 1, 2);
  });
  products.finish();
  if (t.last && t.low_pairs) {
    stride = t.low_stride;
    left = whole_left(t.low, stride, rows, t.low_pairs, space + kProductTile * kProductInner);
    add_products<2, C, Streamed::columns>(left, stride, t.right + std::size_t(pairs) * kProductPanel, kProductPanel,
                             round_up(t.low_pairs, kSumPairs), [](int) {});
  }
  float* sums = products.sums((float*)t.space);
  store_sums<2, C>(sums, kProductPanel);
  products.wait({sums, t.start, t.start_stride, t.last ? nullptr : t.partial, t.out, t.last ? t.out_stride : t.partial_stride,
                 rows, 16 * C});
}

// As many of the rows as are done at once; their number.
inline int product_rows(const ProductTile& tile, int rows, int columns, Products& products) {
  const int done = std::min(rows, kProductTile);
  if (columns == kProductPanel) product_panel_tile<2>(tile, done, products);
  else product_panel_tile<1>(tile, done, products);
  return done;
}

// --- gradients of weights (ops/training_weights.h) ---------------------------------------------------------------
constexpr int kGradientSpace = 2 * kProductTile * kProductPanel;  // floats that `gradient_rows` wants for itself

template <int R, int C>
inline void gradient_tile(const std::uint32_t* left, const std::uint32_t* right, int pairs, float* out,
                          std::ptrdiff_t out_stride, bool add, Products& products, float* space) {
  zero_sums<R, C>();
  add_products<R, C, Streamed::rows>((const Bfloat*)left, 2 * pairs, right, kGradientPanel, pairs,
                                     [&](int p) { products.write((p + kSumPairs) * kProductTile / pairs); });
  products.finish();
  float* sums = products.sums(space);
  store_sums<R, C>(sums, kProductPanel);
  products.wait({sums, add ? out : nullptr, out_stride, out, nullptr, out_stride, 16 * R, 16 * C});
}

// For R outputs and the inputs of a panel: out[R][columns] (+)= left right.
template <int R>
inline void gradient_rows(const std::uint32_t* left, const std::uint32_t* right, int pairs, int columns, float* out,
                          std::ptrdiff_t out_stride, bool add, Products& products, float* space) {
  if (columns == kGradientPanel) gradient_tile<R / 16, 2>(left, right, pairs, out, out_stride, add, products, space);
  else gradient_tile<R / 16, 1>(left, right, pairs, out, out_stride, add, products, space);
}

// [rows][columns] -> [columns][pairs of rows], zeros after the last.
inline void pair_strips(const Bfloat* in, std::ptrdiff_t stride, int rows, int columns, std::uint32_t* space,
                        std::uint32_t* out) {
  const int pairs = round_up((rows + 1) / 2, kSumPairs);
  for (int p = 0; p < pairs; p += 16)
    for (int c = 0; c < columns; c += 16) {
      const int left = std::min(32, rows - 2 * p), filled = (left + 1) / 2;
      pair_block(in + 2 * p * stride + c, stride, left, 16, space, 16);
      if (filled < 16) std::memset(space + filled * 16, 0, std::size_t(16 - filled) * 64);
      transpose_block(space, 16, out + std::size_t(c) * pairs + p, pairs);
    }
}

}  // namespace
}  // namespace octavo
