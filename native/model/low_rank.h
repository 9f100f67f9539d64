// Low-rank additions to matrices, of each sequence its own: what adapters are to a step.
#pragma once
#include <cstdint>
#include <vector>

namespace octavo {

constexpr int kUpRows = 16;  // rows of `up` that lie together

// Rows first_row.. of a matrix get up (down x).  Kept in bfloat16, in the order in which they are read; each sum has
// one order, which is the same on any processor.
struct LowRankPair {
  int first_row, rows, rank, columns;
  std::vector<std::uint16_t> down;  // [columns][rank]
  std::vector<std::uint16_t> up;    // [ceil(rows / 16)][rank][16], zero beyond the last row
};

// The pairs of an adapter, by the number of the matrix.
struct AdapterPairs {
  std::vector<std::vector<LowRankPair>> of_matrix;

  const std::vector<LowRankPair>* find(int matrix) const {
    return matrix < int(of_matrix.size()) && !of_matrix[matrix].empty() ? &of_matrix[matrix] : nullptr;
  }
};

LowRankPair make_pair(int first_row, int rank, int columns, const float* down, int rows, const float* up);

// inner[rank] = down x.
void multiply_down(const LowRankPair& pair, const float* x, float* inner);

// out[row] += up[row] inner, for the matrix's rows from `begin` to below `end`; out is that of row `begin`.
void add_up(const LowRankPair& pair, const float* inner, int begin, int end, float* out);

}  // namespace octavo
