// See low_rank.h.  Nothing is summed across the numbers of a vector, so vectors of any width give the same bits; with
// GCC on x86 they are compiled for each width, and the processor's is taken when the program starts.
#include "model/low_rank.h"

#include <algorithm>
#include <bit>
#include <cstring>
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

inline float widened(std::uint16_t bits) { return std::bit_cast<float>(std::uint32_t(bits) << 16); }

constexpr int kWidth = 16;  // numbers that are computed together, whatever vectors the processor has
constexpr int kSums = 4;    // sums of a product with down, so that an addition need not wait for the one before
static_assert(kWidth == kUpRows);

// Vectors of GCC and Clang: as plain arrays, sums would be read and written in every turn of a loop.
using Floats = float __attribute__((vector_size(4 * kWidth)));
using Words = std::uint32_t __attribute__((vector_size(4 * kWidth)));

// A macro, since a function for any processor may not take or give such vectors.
#define OCTAVO_WIDENED(from, to)                                                              \
  {                                                                                           \
    Words words;                                                                              \
    for (int lane = 0; lane < kWidth; ++lane) words[lane] = std::uint32_t((from)[lane]) << 16; \
    std::memcpy(&to, &words, sizeof words);                                                   \
  }

// inner[k] = sum over i of x[i] * down[i][k], for kWidth neighbours k: by i modulo kSums, then those together.
OCTAVO_WIDTHS void sum_columns(const std::uint16_t* __restrict down, int rank, const float* __restrict x, int columns,
                               float* __restrict inner) {
  Floats sums[kSums] = {}, values;
  int i = 0;
  for (; i + kSums <= columns; i += kSums)
    for (int part = 0; part < kSums; ++part, down += rank) {
      OCTAVO_WIDENED(down, values)
      sums[part] += x[i + part] * values;
    }
  for (int part = 0; i < columns; ++i, ++part, down += rank) {
    OCTAVO_WIDENED(down, values)
    sums[part] += x[i] * values;
  }
  const Floats whole = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  std::memcpy(inner, &whole, sizeof whole);
}

// The same for the last ranks, of which there are fewer.
void sum_few_columns(const std::uint16_t* down, int rank, int width, const float* x, int columns, float* inner) {
  float sums[kSums][kWidth] = {};
  for (int i = 0; i < columns; ++i, down += rank)
    for (int k = 0; k < width; ++k) sums[i % kSums][k] += x[i] * widened(down[k]);
  for (int k = 0; k < width; ++k) inner[k] = (sums[0][k] + sums[1][k]) + (sums[2][k] + sums[3][k]);
}

// out[row] += sum over k of inner[k] * up[k][row], one k after the other, for whole blocks of rows.
OCTAVO_WIDTHS void add_blocks(const std::uint16_t* __restrict up, const float* __restrict inner, int rank, int blocks,
                              float* __restrict out) {
  for (int block = 0; block < blocks; ++block, out += kUpRows) {
    Floats sums, values;
    std::memcpy(&sums, out, sizeof sums);
    for (int k = 0; k < rank; ++k, up += kUpRows) {
      OCTAVO_WIDENED(up, values)
      sums += inner[k] * values;
    }
    std::memcpy(out, &sums, sizeof sums);
  }
}

}  // namespace

LowRankPair make_pair(int first_row, int rank, int columns, const float* down, int rows, const float* up) {
  LowRankPair pair{first_row, rows, rank, columns, {}, {}};
  pair.down.resize(std::size_t(rank) * columns);
  pair.up.resize(std::size_t(rank) * ((rows + kUpRows - 1) / kUpRows) * kUpRows);
  for (int k = 0; k < rank; ++k)
    for (int i = 0; i < columns; ++i) pair.down[std::size_t(i) * rank + k] = bfloat_from_float(down[std::size_t(k) * columns + i]);
  for (int row = 0; row < rows; ++row)
    for (int k = 0; k < rank; ++k)
      pair.up[(std::size_t(row / kUpRows) * rank + k) * kUpRows + row % kUpRows] = bfloat_from_float(up[std::size_t(row) * rank + k]);
  return pair;
}

void multiply_down(const LowRankPair& pair, const float* x, float* inner) {
  int k = 0;
  for (; k + kWidth <= pair.rank; k += kWidth) sum_columns(pair.down.data() + k, pair.rank, x, pair.columns, inner + k);
  if (k < pair.rank) sum_few_columns(pair.down.data() + k, pair.rank, pair.rank - k, x, pair.columns, inner + k);
}

void add_up(const LowRankPair& pair, const float* inner, int begin, int end, float* out) {
  const int last = std::min(end, pair.first_row + pair.rows);
  for (int row = std::max(begin, pair.first_row); row < last;) {
    const int within = row - pair.first_row, skipped = within % kUpRows;
    const std::uint16_t* up = pair.up.data() + std::size_t(within / kUpRows) * pair.rank * kUpRows;
    float* to = out + (row - begin);
    if (!skipped && last - row >= kUpRows) {
      const int blocks = (last - row) / kUpRows;
      add_blocks(up, inner, pair.rank, blocks, to);
      row += blocks * kUpRows;
      continue;
    }
    const int count = std::min(kUpRows - skipped, last - row);  // a part of a block
    float sums[kUpRows] = {};
    std::copy_n(to, count, sums + skipped);
    add_blocks(up, inner, pair.rank, 1, sums);
    std::copy_n(sums + skipped, count, to);
    row += count;
  }
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
