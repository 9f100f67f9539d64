// Products of activations with weights that are stored once: [O, I] in bfloat16, or in NF4 and unpacked where they are
// read.  Both directions read that one matrix: x W^T, and g W for the gradient of x.  A pair of thin matrices is added in
// the same sums (LoRA: x W^T + (x A^T) B^T), and costs no pass over memory of its own.
// Included by isa/avx512_bfloat16.cpp and isa/amx.cpp after ops/training_weights.h.
#pragma once
#include "ops/training_layouts.h"

namespace octavo {
namespace {

// 64 values of NF4: the 16 that a block can have are rounded once, and codes look them up.
inline void unpack_nf4_block(const std::uint8_t* codes, float scale, Bfloat* out) {
  const __m512 levels = _mm512_mul_ps(_mm512_loadu_ps(kNf4Levels), _mm512_set1_ps(scale));
  const __m512i table = _mm512_broadcast_i64x4((__m256i)_mm512_cvtneps_pbh(levels));
  for (int half = 0; half < 2; ++half) {
    const __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)(codes + 16 * half)));
    const __m512i second = _mm512_slli_epi32(_mm512_and_si512(bytes, _mm512_set1_epi32(15)), 16);
    const __m512i places = _mm512_or_si512(_mm512_srli_epi32(bytes, 4), second);
    _mm512_storeu_si512(out + 32 * half, _mm512_permutexvar_epi16(places, table));
  }
}

// Rows [begin, end) and columns [from, to) of the weight, `to - from` a multiple of 64, as bfloat16 [rows][to - from].
void unpack_nf4_tile(const TrainingWeight& weight, int begin, int end, int from, int to, Bfloat* out) {
  const int blocks = weight.columns / 64;
  const TrainingNf4* part = weight.nf4;
  for (int row = begin; row < end; ++row) {
    while (row >= part->end) ++part;
    std::size_t block = std::size_t(row - part->begin) * blocks + from / 64;
    for (int column = from; column < to; column += 64, ++block, out += 64)
      unpack_nf4_block(part->codes + block * 32, part->scale(block), out);
  }
}

// A panel of columns [.., columns <= kProductPanel] of the right side, as pairs along the sum, filled up with zeros.  `in` is [columns][2 pairs] where
// the weight is transposed, else [2 pairs][columns].
inline void pack_panel(const Bfloat* in, std::ptrdiff_t stride, bool transposed, int pairs, int columns, std::uint32_t* out) {
  for (int p = pairs; p < round_up(pairs, kSumPairs); ++p) std::memset(out + std::size_t(p) * kProductPanel, 0, kProductPanel * 4);
  if (!transposed) return pair_block(in, stride, 2 * pairs, columns, out, kProductPanel);
  int p = 0;
  for (; p + 16 <= pairs && stride % 2 == 0; p += 16)
    for (int c = 0; c < columns; c += 16)
      transpose_block((const std::uint32_t*)(in + c * stride) + p, stride / 2, out + std::size_t(p) * kProductPanel + c,
                      kProductPanel);
  for (; p < pairs; ++p)
    for (int c = 0; c < columns; ++c) std::memcpy(out + std::size_t(p) * kProductPanel + c, in + c * stride + 2 * p, 4);
}

// The thin product's rows for columns [c, c + columns).
inline void pack_low_pairs(const TrainingProduct& task, int c, int columns, std::uint32_t* out) {
  pack_panel(task.low_right + (task.transposed ? c * task.low_right_stride : c), task.low_right_stride, task.transposed, task.rank / 2,
             columns, out);
}

// How a product has its sides: in pairs of bfloat16.  ByteSides of ops/training_bytes.h has them in bytes.
struct PairSides {
  static constexpr int kInner = kProductInner;  // terms of a sum between two visits of memory
  static std::size_t lines(int terms) { return round_up(terms / 2, kSumPairs); }
  static std::size_t low_lines(const TrainingProduct& task) { return round_up(task.rank / 2, kSumPairs); }

  static void pack(const Bfloat* in, std::ptrdiff_t stride, bool transposed, int terms, int columns, std::uint32_t* out) {
    pack_panel(in, stride, transposed, terms / 2, columns, out);
  }
  static void pack_low(const TrainingProduct& task, int c, int columns, std::uint32_t* out) {
    if (task.rank) pack_low_pairs(task, c, columns, out);
  }

  static Ahead left_ahead(const TrainingProduct& task, int n, int k, int rows, int terms) {
    return {task.left + n * task.left_stride + k, task.left_stride, rows, terms};
  }
  static void place_left(const TrainingProduct& task, int n, int k, ProductTile& tile) {
    tile.left = task.left + n * task.left_stride + k;
    tile.left_stride = task.left_stride;
  }
  static int rows(const ProductTile& tile, int rows, int columns, Products& products) {
    return product_rows(tile, rows, columns, products);
  }
};

// The part of the weight that a piece's panels of one stretch of the sum are made of.
Ahead weight_ahead(const TrainingProduct& task, int k, int terms, int begin, int end) {
  const TrainingWeight& weight = task.weight;
  if (k >= task.inner || !weight.values) return {};
  terms = std::min(terms, task.inner - k);
  if (task.transposed) return {weight.values + begin * weight.stride + k, weight.stride, end - begin, terms};
  return {weight.values + k * weight.stride + begin, weight.stride, terms, end - begin};
}

// The panels of columns c0 to c1 for terms [k, k + terms) of the sum, and behind the last of these for the thin product.
template <class Sides>
void pack_panels(const TrainingProduct& task, int k, int terms, int c0, int c1, Bfloat* unpacked, std::uint32_t* panels,
                 std::size_t panel_size) {
  const TrainingWeight& weight = task.weight;
  // Columns of the product: rows of W if it is transposed, else columns.
  const Bfloat* in = unpacked;
  std::ptrdiff_t stride = task.transposed ? terms : c1 - c0;
  if (weight.values) {
    stride = weight.stride;
    in = weight.values + (task.transposed ? c0 * stride + k : k * stride + c0);
  } else if (task.transposed) {
    unpack_nf4_tile(weight, c0, c1, k, k + terms, unpacked);
  } else {
    unpack_nf4_tile(weight, k, k + terms, c0, c1, unpacked);
  }
  for (int c = c0; c < c1; c += kProductPanel, panels += panel_size) {
    const int columns = std::min(kProductPanel, c1 - c), at = c - c0;
    Sides::pack(in + (task.transposed ? at * stride : at), stride, task.transposed, terms, columns, panels);
    if (k + terms == task.inner) Sides::pack_low(task, c, columns, panels + Sides::lines(terms) * kProductPanel);
  }
}

// A few rows with all panels of a piece: these rows stay in the first cache and the panels in the second, and what is
// written lies in a row.
template <class Sides>
void training_product(const TrainingProduct& task, int piece) {
  const int across = parts(task.rows, task.piece_rows);
  const int n0 = piece % across * task.piece_rows, n1 = std::min(task.rows, n0 + task.piece_rows);
  const int c0 = piece / across * task.piece_columns, c1 = std::min(task.columns, c0 + task.piece_columns);
  const int stretches = parts(task.inner, Sides::kInner);  // of a sum, of equal length
  const int stretch = std::min(task.inner, round_up(parts(task.inner, stretches), 64));
  const std::size_t panel_size = (Sides::lines(stretch) + Sides::low_lines(task)) * kProductPanel;
  const int count = parts(c1 - c0, kProductPanel);
  const std::size_t panels_size = panel_size * count;
  const std::size_t partial_size = std::size_t(stretches == 1 ? 0 : round_up(n1 - n0, kProductTile)) * task.piece_columns;
  const std::size_t unpacked_size = std::size_t(task.weight.values ? 0 : stretch) * task.piece_columns;
  scratch.begin(panels_size * 4 + partial_size * 4 + unpacked_size * 2 + product_space(task.rank) + 512);
  std::uint32_t* panels = scratch.take<std::uint32_t>(panels_size);
  float* partial = scratch.take<float>(partial_size);
  Bfloat* unpacked = scratch.take<Bfloat>(unpacked_size);
  std::uint8_t* space = scratch.take<std::uint8_t>(product_space(task.rank));
  Products products;
  for (int k = 0; k < task.inner; k += stretch) {
    const int terms = std::min(stretch, task.inner - k);
    const bool last = k + terms == task.inner;
    pack_panels<Sides>(task, k, terms, c0, c1, unpacked, panels, panel_size);
    const int blocks = parts(n1 - n0, kProductTile);
    Ahead weights = weight_ahead(task, k + stretch, stretch, c0, c1);
    const int weight_lines = parts(weights.lines(), blocks * count);
    for (int n = n0, done = 0; n < n1; n += done) {
      // The rows after these come from further away than the panels.
      const int following = std::clamp(n1 - n - kProductTile, 0, kProductTile);
      Ahead rows = Sides::left_ahead(task, n + kProductTile, k, following, terms);
      const int rows_lines = parts(rows.lines(), count);
      for (int c = c0; c < c1; c += kProductPanel) {
        const int at = c - c0;
        float* kept = partial + std::size_t(n - n0) * task.piece_columns + at;
        const float* bias = task.bias ? task.bias + c : nullptr;
        ProductTile tile{nullptr, 0, panels + std::size_t(at / kProductPanel) * panel_size, terms / 2,
                         task.low_left + n * task.low_left_stride, task.low_left_stride, task.rank / 2,
                         k ? kept : bias, k ? task.piece_columns : 0, kept, task.piece_columns, last,
                         task.out + n * task.out_stride + c, task.out_stride, space, &rows, &weights, rows_lines, weight_lines};
        Sides::place_left(task, n, k, tile);
        done = Sides::rows(tile, n1 - n, std::min(kProductPanel, c1 - c), products);
      }
    }
  }
  products.finish();
}

inline void scale_row(const float* in, float scale, int count, Bfloat* out) {
  const __m512 factor = _mm512_set1_ps(scale);
  for (int i = 0; i < count; i += 16) {
    const __mmask16 lanes = lanes_left(count - i);
    const __m512 scaled = _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes, in + i), factor);
    _mm256_mask_storeu_epi16(out + i, lanes, (__m256i)_mm512_cvtneps_pbh(scaled));
  }
}

void join_training_pairs(const TrainingPairs& task) {
  std::memset(task.up, 0, std::size_t(task.outputs) * task.rank * sizeof(Bfloat));
  int column = 0;
  for (int p = 0; p < task.count; ++p) {
    const TrainingPair& pair = task.pairs[p];
    for (int r = 0; r < pair.rank; ++r)
      scale_row(pair.down + std::size_t(r) * task.inputs, pair.scale, task.inputs, task.down + std::size_t(column + r) * task.inputs);
    for (int row = pair.begin; row < pair.end; ++row)
      scale_row(pair.up + std::size_t(row - pair.begin) * pair.rank, 1.0f, pair.rank, task.up + std::size_t(row) * task.rank + column);
    column += pair.rank;
  }
  std::memset(task.down + std::size_t(column) * task.inputs, 0, std::size_t(task.rank - column) * task.inputs * sizeof(Bfloat));
}

}  // namespace
}  // namespace octavo
