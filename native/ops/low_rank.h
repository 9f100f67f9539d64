// out[row] += sum over k of up[row][k] * inner[k]: what an adapter adds to a matrix's product, for one token.
//
// The integers of a group of 32 k are summed exactly, then groups one after the other: the same bits in any company.
// Included by isa/*.cpp after a vector_*.h; everything here has internal linkage.
#pragma once
#include "ops/matmul.h"

namespace octavo {
namespace {

inline F load_rows(const float* from, int rows) {
  if (rows >= kPanelRows) return load(from);
  float padded[kPanelRows] = {};
  for (int r = 0; r < rows; ++r) padded[r] = from[r];
  return load(padded);
}

// The product of a group's first `lines` lines of codes, each of four k, with one token's values.
inline F low_rank_group(const std::uint8_t* codes, int lines, const QuantizedGroup& values) {
  I sum = start_wide(&values.start);
  for (int line = 0; line < lines; ++line)
    sum = dot_wide(sum, wide(load_line(codes + kLine * line)), load_four(values.codes + 4 * line));
  return to_float(sum) * broadcast(values.scale);
}

void add_low_rank(const LowRankTask& task, int begin, int end) {
  const UpPanels& up = task.up;
  for (int panel = begin; panel < end; ++panel) {
    const std::uint8_t* codes = up.codes + up.panel_bytes() * panel;
    F sum = zero_lanes();
    for (int group = 0, left = up.lines(); left > 0; ++group, left -= kGroupLines, codes += kLine * kGroupLines) {
      const int lines = left < kGroupLines ? left : kGroupLines;
      const QuantizedGroup* values = task.inner + 2 * group;
      sum = sum + low_rank_group(codes, lines, values[0]);
      if (values[0].has_rest) sum = sum + low_rank_group(codes, lines, values[1]);
    }
    const int row = panel * kPanelRows, rows = task.rows - row;
    const F scale = load_bfloat(up.scales + row);
    store_rows(task.out + row, multiply_add(sum, scale, load_rows(task.out + row, rows)), rows);
  }
}

}  // namespace
}  // namespace octavo
