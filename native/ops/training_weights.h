// Gradients of weights: a product whose sum runs over the rows (tokens) of both sides, which neither side's layout is
// made for.  Blocks of rows are put into pairs of neighbouring rows first; sums stay in float32, over all rows.
// Included after ops/training_attention.h.
#pragma once
#include "ops/training_layouts.h"

namespace octavo {
namespace {

constexpr int kPairs = kGradientRows / 2, kPanelSize = kPairs * kGradientPanel;

// Rows in pairs and panels, [panel][pairs][kGradientPanel], zeros after the last row.  Whole rows are read, since memory
// likes what is long.
inline void pair_panels(const Bfloat* in, std::ptrdiff_t stride, int rows, int columns, int pairs, std::uint32_t* out) {
  const int filled = (rows + 1) / 2;
  if (filled < pairs)
    for (int c = 0; c < columns; c += kGradientPanel)
      std::memset(out + std::size_t(c / kGradientPanel) * kPanelSize + std::size_t(filled) * kGradientPanel, 0,
                  std::size_t(pairs - filled) * kGradientPanel * 4);
  for (int n = 0; n < rows; n += 2)
    for (int c = 0; c < columns; c += kGradientPanel)
      pair_block(in + n * stride + c, stride, std::min(2, rows - n), std::min(kGradientPanel, columns - c),
                 out + std::size_t(c / kGradientPanel) * kPanelSize + n / 2 * kGradientPanel, kGradientPanel);
}

// All strips of the left side with one panel; `before` is told the first output of each.
template <class Before>
inline void gradient_strips(const std::uint32_t* left, const std::uint32_t* panel, int pairs, int outputs, int columns,
                            float* out, std::ptrdiff_t out_stride, bool add, Products& products, float* sums, Before&& before) {
  int o = 0;
  for (; o + kGradientTile <= outputs; o += kGradientTile) {
    before(o);
    gradient_rows<kGradientTile>(left + std::size_t(o) * pairs, panel, pairs, columns, out + o * out_stride, out_stride, add, products,
                                 sums);
  }
  for (; o < outputs; o += kGradientRest)
    gradient_rows<kGradientRest>(left + std::size_t(o) * pairs, panel, pairs, columns, out + o * out_stride, out_stride, add, products,
                                 sums);
}

void training_weight_gradient(const TrainingWeightGradient& task, int piece) {
  const int across = parts(task.inputs, task.piece_inputs);
  const int o0 = piece / across * task.piece_outputs, i0 = piece % across * task.piece_inputs;
  const int outputs = std::min(task.piece_outputs, task.outputs - o0), inputs = std::min(task.piece_inputs, task.inputs - i0);
  const int kept_inputs = round_up(inputs, kGradientPanel), space_size = std::max(outputs, 256);
  const bool sums_bias = task.bias_gradient && !i0;
  const std::size_t ones_size = sums_bias ? std::size_t(kPairs) * kGradientPanel : 0;
  scratch.begin((std::size_t(kPairs) * (outputs + kept_inputs) + space_size + ones_size + 16 * outputs + kGradientSpace) * 4 + 512);
  std::uint32_t* left = scratch.take<std::uint32_t>(std::size_t(kPairs) * outputs);
  std::uint32_t* space = scratch.take<std::uint32_t>(space_size);
  std::uint32_t* right = scratch.take<std::uint32_t>(std::size_t(kPairs) * kept_inputs);
  // Sums over rows are products with pairs of ones.
  std::uint32_t* ones = scratch.take<std::uint32_t>(ones_size);
  for (std::size_t i = 0; i < ones_size; ++i) ones[i] = 0x3f803f80;
  float* bias_sums = scratch.take<float>(16 * std::size_t(outputs));
  float* sums = scratch.take<float>(kGradientSpace);
  Products products;
  for (int n = 0; n < task.rows; n += kGradientRows) {
    const int rows = std::min(kGradientRows, task.rows - n), pairs = round_up((rows + 1) / 2, kSumPairs);
    const bool add = task.add || n > 0;
    const std::int64_t next = std::max(0, std::min(kGradientRows, task.rows - n - kGradientRows));
    const Bfloat* following_in = task.in + std::ptrdiff_t(n + rows) * task.in_stride + i0;
    const Bfloat* following_gradient = task.out_gradient + std::ptrdiff_t(n + rows) * task.out_stride + o0;
    pair_strips(task.out_gradient + n * task.out_stride + o0, task.out_stride, rows, outputs, space, left);
    pair_panels(task.in + n * task.in_stride + i0, task.in_stride, rows, inputs, pairs, right);
    if (sums_bias) gradient_strips(left, ones, pairs, outputs, 16, bias_sums, 16, n > 0, products, sums, [](int) {});
    for (int i = 0; i < inputs; i += kGradientPanel) {
      const std::uint32_t* panel = right + std::size_t(i / kGradientPanel) * kPanelSize;
      const int columns = std::min(kGradientPanel, inputs - i);
      float* out = task.weight_gradient + std::size_t(o0) * task.inputs + i0 + i;
      gradient_strips(left, panel, pairs, outputs, columns, out, task.inputs, add, products, sums, [&](int o) {
        // Tile by tile through the rows of the next block.
        const std::int64_t tiles = std::int64_t(inputs) * outputs, done = std::int64_t(i) * outputs + std::int64_t(o) * columns;
        const int from = int(next * done / tiles), to = int(next * (done + kGradientTile * columns) / tiles);
        prefetch_rows(following_in, task.in_stride, from, to, inputs);
        prefetch_rows(following_gradient, task.out_stride, from, to, outputs);
      });
    }
  }
  products.finish();
  for (int o = 0; sums_bias && o < outputs; ++o) task.bias_gradient[o0 + o] = bias_sums[16 * o];
}

}  // namespace
}  // namespace octavo
