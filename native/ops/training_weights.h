// Gradients of weights: a product whose sum runs over the rows (tokens) of both sides, which neither side's layout is
// made for.  Blocks of rows are put into pairs of neighbouring rows first; sums stay in float32, over all rows.
// Included after ops/training_attention.h.
#pragma once
#include "ops/training.h"

namespace octavo {
namespace {

constexpr int kGradientRows = 256;   // that are summed in registers
constexpr int kGradientPanel = 64;   // inputs
constexpr int kGradientTile = 6;     // outputs: 6 x 4 registers of sums
constexpr int kPairs = kGradientRows / 2, kPanelSize = kPairs * kGradientPanel;

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

template <int R>
inline void gradient_rows(const std::uint32_t* left, const std::uint32_t* right, int pairs, int columns, float* out,
                          std::ptrdiff_t out_stride, bool add) {
  if (columns == kGradientPanel) return gradient_tile<R, 4>(left, right, pairs, out, out_stride, add);
  for (int c = 0; c < columns; c += 16) gradient_tile<R, 1>(left, right + c, pairs, out + c, out_stride, add);
}

// rows x columns -> [rows/2] elements of (row 2j, row 2j + 1), `out_stride` apart; a missing last row is zero.
inline void pair_block(const Bfloat* in, std::ptrdiff_t stride, int rows, int columns, std::uint32_t* out,
                       std::ptrdiff_t out_stride) {
  for (int n = 0; n < rows; n += 2)
    for (int c = 0; c < columns; c += 16) {
      const __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)(in + n * stride + c)));
      const __m512i high = n + 1 < rows
          ? _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)(in + (n + 1) * stride + c))) : _mm512_setzero_si512();
      _mm512_storeu_si512(out + n / 2 * out_stride + c, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
    }
}

// The same in panels, [panel][rows/2][kGradientPanel].  Whole rows are read, since memory likes what is long.
inline void pair_panels(const Bfloat* in, std::ptrdiff_t stride, int rows, int columns, std::uint32_t* out) {
  for (int n = 0; n < rows; n += 2)
    for (int c = 0; c < columns; c += kGradientPanel)
      pair_block(in + n * stride + c, stride, std::min(2, rows - n), std::min(kGradientPanel, columns - c),
                 out + std::size_t(c / kGradientPanel) * kPanelSize + n / 2 * kGradientPanel, kGradientPanel);
}

// The same in strips of kGradientTile columns, [strip][rows/2][kGradientTile]; what is left over is strips of one.
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

// Brings a stretch of the next block's rows from memory while this block is computed.
inline void prefetch_rows(const Bfloat* in, std::ptrdiff_t stride, int begin, int end, int columns) {
  for (int n = begin; n < end; ++n)
    for (int c = 0; c < columns; c += 32) _mm_prefetch((const char*)(in + n * stride + c), _MM_HINT_T1);
}

void training_weight_gradient(const TrainingWeightGradient& task, int piece) {
  const int across = (task.inputs + kGradientInputs - 1) / kGradientInputs;
  const int o0 = piece / across * kGradientOutputs, i0 = piece % across * kGradientInputs;
  const int outputs = std::min(kGradientOutputs, task.outputs - o0), inputs = std::min(kGradientInputs, task.inputs - i0);
  scratch.begin(std::size_t(kPairs) * (kGradientOutputs + kGradientInputs) * 4 + kGradientOutputs * 4 + 256);
  std::uint32_t* left = scratch.take<std::uint32_t>(std::size_t(kPairs) * kGradientOutputs);
  std::uint32_t* space = scratch.take<std::uint32_t>(kGradientOutputs);
  std::uint32_t* right = scratch.take<std::uint32_t>(std::size_t(kPairs) * kGradientInputs);
  for (int n = 0; n < task.rows; n += kGradientRows) {
    const int rows = std::min(kGradientRows, task.rows - n), pairs = (rows + 1) / 2;
    const bool add = task.add || n > 0;
    const std::int64_t next = std::max(0, std::min(kGradientRows, task.rows - n - kGradientRows));
    const Bfloat* following_in = task.in + std::ptrdiff_t(n + rows) * task.in_stride + i0;
    const Bfloat* following_gradient = task.out_gradient + std::ptrdiff_t(n + rows) * task.out_stride + o0;
    pair_strips(task.out_gradient + n * task.out_stride + o0, task.out_stride, rows, outputs, space, left);
    pair_panels(task.in + n * task.in_stride + i0, task.in_stride, rows, inputs, right);
    for (int i = 0; i < inputs; i += kGradientPanel) {
      const std::uint32_t* panel = right + std::size_t(i / kGradientPanel) * kPanelSize;
      const int columns = std::min(kGradientPanel, inputs - i);
      float* out = task.weight_gradient + std::size_t(o0) * task.inputs + i0 + i;
      int o = 0;
      for (; o + kGradientTile <= outputs; o += kGradientTile) {
        // Tile by tile through the rows of the next block.
        const std::int64_t tiles = std::int64_t(inputs) * outputs, done = std::int64_t(i) * outputs + std::int64_t(o) * columns;
        const int from = int(next * done / tiles), to = int(next * (done + kGradientTile * columns) / tiles);
        prefetch_rows(following_in, task.in_stride, from, to, inputs);
        prefetch_rows(following_gradient, task.out_stride, from, to, outputs);
        gradient_rows<kGradientTile>(left + std::size_t(o) * pairs, panel, pairs, columns, out + std::size_t(o) * task.inputs,
                                     task.inputs, add);
      }
      for (; o < outputs; ++o)
        gradient_rows<1>(left + std::size_t(o) * pairs, panel, pairs, columns, out + std::size_t(o) * task.inputs,
                         task.inputs, add);
    }
  }
}

}  // namespace
}  // namespace octavo
