// See low_rank.h.  The loops have no order of their own to keep within a line, so each compiler's vectors give the same
// bits; with GCC on x86 they are compiled for each width, and the processor's is taken when the program starts.
#include "model/low_rank.h"

#include <algorithm>
#include <bit>
#include <stdexcept>
#include <string>

#include "model/model.h"
#include "support/half.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define OCTAVO_WIDTHS __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define OCTAVO_WIDTHS
#endif

namespace octavo {
namespace {

std::uint16_t bfloat_from_float(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  return std::uint16_t((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// out[i] += factor * in[i]
OCTAVO_WIDTHS void add_multiple(const std::uint16_t* __restrict in, float factor, int count, float* __restrict out) {
  for (int i = 0; i < count; ++i) {
    const std::uint32_t bits = std::uint32_t(in[i]) << 16;
    out[i] += factor * std::bit_cast<float>(bits);
  }
}

// inner[k] = sum over i of x[i] * down[i][k]
OCTAVO_WIDTHS void sum_multiples(const std::uint16_t* __restrict down, const float* __restrict x, int columns, int rank,
                                 float* __restrict inner) {
  for (int k = 0; k < rank; ++k) inner[k] = 0.0f;
  for (int i = 0; i < columns; ++i, down += rank)
    for (int k = 0; k < rank; ++k) inner[k] += x[i] * std::bit_cast<float>(std::uint32_t(down[k]) << 16);
}

}  // namespace

LowRankPair make_pair(int first_row, int rank, int columns, const float* down, int rows, const float* up) {
  LowRankPair pair{first_row, rows, rank, columns, {}, {}};
  pair.down.resize(std::size_t(rank) * columns);
  pair.up.resize(std::size_t(rank) * rows);
  for (int k = 0; k < rank; ++k)
    for (int i = 0; i < columns; ++i) pair.down[std::size_t(i) * rank + k] = bfloat_from_float(down[std::size_t(k) * columns + i]);
  for (int row = 0; row < rows; ++row)
    for (int k = 0; k < rank; ++k) pair.up[std::size_t(k) * rows + row] = bfloat_from_float(up[std::size_t(row) * rank + k]);
  return pair;
}

void multiply_down(const LowRankPair& pair, const float* x, float* inner) {
  sum_multiples(pair.down.data(), x, pair.columns, pair.rank, inner);
}

void add_up(const LowRankPair& pair, const float* inner, int begin, int end, float* out) {
  const int first = std::max(begin, pair.first_row), last = std::min(end, pair.first_row + pair.rows);
  if (first >= last) return;
  for (int k = 0; k < pair.rank; ++k)
    add_multiple(pair.up.data() + std::size_t(k) * pair.rows + (first - pair.first_row), inner[k], last - first,
                 out + (first - begin));
}

// --- of the model ---

void Model::add_low_rank(int adapter, int matrix, int first_row, int rank, int columns, const float* down, int rows,
                         const float* up) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (adapter < 0 || matrix < 0 || matrix >= int(matrices_.size()) || rank < 1)
    throw std::invalid_argument("an adapter's pair must name one of the model's matrices");
  const PanelMatrix& base = matrices_[matrix];
  if (columns != base.columns || first_row < 0 || first_row + rows > base.rows)
    throw std::invalid_argument("a pair of " + std::to_string(rows) + " x " + std::to_string(columns) + " does not fit a matrix of " +
                                std::to_string(base.rows) + " x " + std::to_string(base.columns));
  if (adapter >= int(adapters_.size())) adapters_.resize(adapter + 1);
  auto& pairs = adapters_[adapter].of_matrix;
  if (matrix >= int(pairs.size())) pairs.resize(matrix + 1);
  pairs[matrix].push_back(make_pair(first_row, rank, columns, down, rows, up));
  for (const Stage& stage : stages_) {
    int inner = 0;
    for (const MatmulPart& part : stage.matmuls)
      if (const auto* found = adapters_[adapter].find(part.matrix))
        for (const LowRankPair& pair : *found) inner += pair.rank;
    most_inner_ = std::max(most_inner_, inner);
  }
}

void Model::clear_adapter(int adapter) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (adapter >= 0 && adapter < int(adapters_.size())) adapters_[adapter].of_matrix.clear();
}

const AdapterPairs* Model::adapter_of(int token) const {
  const int adapter = sequences_[token_sequence_[token]].adapter;
  return adapter < 0 ? nullptr : &adapters_[adapter];
}

// The products with all downs of a stage, one behind the other in the order of its matmuls.
void Model::low_rank_inner(const Stage& stage, int token) {
  const AdapterPairs* adapter = adapter_of(token);
  if (!adapter) return;
  float* inner = inner_.data() + std::size_t(token) * most_inner_;
  for (const MatmulPart& part : stage.matmuls)
    if (const auto* pairs = adapter->find(part.matrix))
      for (const LowRankPair& pair : *pairs) {
        multiply_down(pair, at(stage.matmul_input, token), inner);
        inner += pair.rank;
      }
}

void Model::add_low_rank_piece(const Stage& stage, int matrix, int first_row, int last_row, const MatmulTask& task) {
  for (int row = 0; row < task.tokens; ++row) {
    const int token = stage.on_outputs ? input_.outputs[row] : row;
    const AdapterPairs* adapter = adapter_of(token);
    if (!adapter) continue;
    const float* inner = inner_.data() + std::size_t(token) * most_inner_;
    for (const MatmulPart& part : stage.matmuls) {
      const auto* pairs = adapter->find(part.matrix);
      if (!pairs) continue;
      for (const LowRankPair& pair : *pairs) {
        if (part.matrix == matrix) add_up(pair, inner, first_row, last_row, task.out + task.out_stride * row + first_row);
        inner += pair.rank;
      }
    }
  }
}

}  // namespace octavo
