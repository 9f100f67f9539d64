// See low_rank.h.
#include "model/low_rank.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

#include "model/model.h"
#include "support/half.h"

namespace octavo {
namespace {

int whole(int count, int unit) { return (count + unit - 1) / unit * unit; }

float largest_magnitude(const float* values, std::size_t count) {
  float largest = 0.0f;
  for (std::size_t i = 0; i < count; ++i) {
    if (!std::isfinite(values[i])) throw std::invalid_argument("an adapter's numbers must be finite");
    largest = std::max(largest, std::abs(values[i]));
  }
  return largest;
}

int code_of(float value, float scale) {
  return scale == 0.0f ? 0 : int(std::clamp(std::nearbyint(value / scale), -127.0f, 127.0f));
}

// Memory that is given out from its beginning, in whole lines; without a base it only counts.
struct Memory {
  std::uint8_t* base;
  std::size_t used = 0;

  std::uint8_t* take(std::size_t bytes) {
    std::uint8_t* taken = base ? base + used : nullptr;
    used += (bytes + kLine - 1) / kLine * kLine;
    return taken;
  }
};

LowRankStage lay_out(const std::vector<LowRankPair>& pairs, Memory& memory) {
  LowRankStage stage;
  stage.down.format = panel_format(BlockType::Q8_0);
  for (const LowRankPair& pair : pairs) {
    const int first_panel = pair.first_row / kPanelRows;
    const int panels = (pair.first_row + pair.rows - 1) / kPanelRows + 1 - first_panel;
    stage.ups.push_back({pair.matrix, first_panel, panels, stage.down.rows, stage.inner_groups, {pair.rank, nullptr, nullptr}});
    stage.down.columns = whole(pair.columns, kGroup);
    stage.down.rows += whole(pair.rank, kPanelRows);
    stage.inner_groups += (pair.rank + kGroup - 1) / kGroup;
  }
  stage.down.data = memory.take(stage.down.panel_bytes() * stage.down.panels());
  for (LowRankUp& each : stage.ups) {
    each.up.scales = reinterpret_cast<std::uint16_t*>(memory.take(sizeof(std::uint16_t) * kPanelRows * each.panels));
    each.up.codes = memory.take(each.up.panel_bytes() * each.panels);
  }
  return stage;
}

// Rounds values, times `factor`, to blocks of Q8_0; beyond `count` there are zeros.
void round_row(const float* values, int count, float factor, std::uint8_t* blocks) {
  for (int first = 0; first < count; first += kGroup, blocks += block_bytes(BlockType::Q8_0)) {
    const int here = std::min(kGroup, count - first);
    const std::uint16_t half = half_from_float(largest_magnitude(values + first, here) * factor / 127.0f);
    std::memcpy(blocks, &half, sizeof half);
    for (int i = 0; i < here; ++i) blocks[2 + i] = std::uint8_t(code_of(values[first + i] * factor, float_from_half(half)));
  }
}

void pack_down(const LowRankPair& pair, float factor, const PanelMatrix& down, int first_panel, std::uint8_t* to) {
  const std::size_t stride = row_bytes(BlockType::Q8_0, down.columns);
  std::vector<std::uint8_t> blocks(stride * pair.rank);
  for (int k = 0; k < pair.rank; ++k)
    round_row(pair.down + std::size_t(k) * pair.columns, pair.columns, factor, blocks.data() + stride * k);
  for (int k = 0; k < pair.rank; k += kPanelRows, ++first_panel)
    pack_panel(BlockType::Q8_0, blocks.data() + stride * k, std::min(kPanelRows, pair.rank - k), down.columns,
               to + down.panel_bytes() * first_panel);
}

// Rows of the panels that the pair has not stay zero.
void pack_up(const LowRankPair& pair, float factor, const UpPanels& up, int panels, std::uint16_t* scales, std::uint8_t* codes) {
  std::memset(codes, 128, up.panel_bytes() * panels);
  const int skipped = pair.first_row % kPanelRows;
  for (int r = 0; r < pair.rows; ++r) {
    const float* values = pair.up + std::size_t(r) * pair.rank;
    const int at = skipped + r;
    scales[at] = bfloat_from_float(largest_magnitude(values, pair.rank) * factor / 127.0f);
    std::uint8_t* row = codes + up.panel_bytes() * (at / kPanelRows) + 4 * (at % kPanelRows);
    for (int k = 0; k < pair.rank; ++k)
      row[kLine * (k / 4) + k % 4] = std::uint8_t(128 + code_of(values[k] * factor, float_from_bfloat(scales[at])));
  }
}

// To the second-level cache, as prefetch() in isa/vector_avx512.h.
void ask_for(const std::uint8_t* from, std::size_t bytes) {
  for (std::size_t at = 0; at < bytes; at += kLine) __builtin_prefetch(from + at, 0, 2);
}

}  // namespace

Adapter pack_adapter(const std::vector<std::vector<LowRankPair>>& of_stage) {
  Memory counted{nullptr};
  for (const auto& pairs : of_stage) lay_out(pairs, counted);
  Adapter adapter;
  adapter.bytes = AlignedBuffer<std::uint8_t>(counted.used);
  Memory memory{adapter.bytes.data()};
  const auto writable = [&](const auto* place) {
    return adapter.bytes.data() + (reinterpret_cast<const std::uint8_t*>(place) - adapter.bytes.data());
  };
  for (const auto& pairs : of_stage) {
    const LowRankStage& stage = adapter.stages.emplace_back(lay_out(pairs, memory));
    for (std::size_t i = 0; i < pairs.size(); ++i) {
      const LowRankUp& each = stage.ups[i];
      // Half floats hold the scales of downs near 1 best: a power of two moves from one half of the pair to the other.
      int exponent = 0;
      std::frexp(largest_magnitude(pairs[i].down, std::size_t(pairs[i].rank) * pairs[i].columns), &exponent);
      pack_down(pairs[i], std::ldexp(1.0f, -exponent), stage.down, each.inner_row / kPanelRows, writable(stage.down.data));
      pack_up(pairs[i], std::ldexp(1.0f, exponent), each.up, each.panels,
              reinterpret_cast<std::uint16_t*>(writable(each.up.scales)), writable(each.up.codes));
    }
  }
  return adapter;
}

// --- of the model ---

void Model::set_adapter(int adapter, const std::vector<LowRankPair>& pairs) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (adapter < 0) throw std::invalid_argument("an adapter's number must not be negative");
  for (const LowRankPair& pair : pairs) {
    if (pair.matrix < 0 || pair.matrix >= int(matrices_.size()) || pair.rank < 1)
      throw std::invalid_argument("an adapter's pair must name one of the model's matrices");
    const PanelMatrix& base = matrices_[pair.matrix];
    if (pair.columns != base.columns || pair.first_row < 0 || pair.rows < 1 || pair.first_row + pair.rows > base.rows)
      throw std::invalid_argument("a pair of " + std::to_string(pair.rows) + " x " + std::to_string(pair.columns) +
                                  " does not fit a matrix of " + std::to_string(base.rows) + " x " + std::to_string(base.columns));
  }
  std::vector<std::vector<LowRankPair>> of_stage(stages_.size());
  for (std::size_t stage = 0; stage < stages_.size(); ++stage)
    for (const MatmulPart& part : stages_[stage].matmuls)
      for (const LowRankPair& pair : pairs) {
        if (pair.matrix != part.matrix) continue;
        // The second pass of a head in two planes would sum its panels again, without the pair.
        if (stages_[stage].is_logits) throw std::invalid_argument("the matrix of the logits takes no pair");
        of_stage[stage].push_back(pair);
      }
  Adapter packed = pack_adapter(of_stage);
  for (const LowRankStage& stage : packed.stages) {
    most_inner_ = std::max(most_inner_, stage.down.rows);
    most_inner_groups_ = std::max(most_inner_groups_, stage.inner_groups);
  }
  if (adapter >= int(adapters_.size())) adapters_.resize(adapter + 1);
  adapters_[adapter] = std::move(packed);
}

void Model::clear_adapter(int adapter) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (adapter >= 0 && adapter < int(adapters_.size())) adapters_[adapter] = Adapter();
}

void Model::prepare_low_rank() {
  step_adapters_.clear();
  for (const Sequence& sequence : sequences_)
    if (sequence.adapter >= 0 && std::find(step_adapters_.begin(), step_adapters_.end(), sequence.adapter) == step_adapters_.end())
      step_adapters_.push_back(sequence.adapter);
  if (step_adapters_.empty()) return;
  inner_.resize(std::size_t(most_inner_) * input_.token_count);
  inner_groups_.resize(2 * std::size_t(most_inner_groups_) * input_.token_count);
}

const LowRankStage* Model::low_rank_of(const Stage& stage, int token) const {
  const int number = input_.adapters ? sequences_[token_sequence_[token]].adapter : -1;
  if (number < 0 || adapters_[number].stages.empty()) return nullptr;
  const LowRankStage& found = adapters_[number].stages[&stage - stages_.data()];
  return found.ups.empty() ? nullptr : &found;
}

QuantizedGroup* Model::inner_of(const LowRankUp& up, int token) {
  return inner_groups_.data() + 2 * (std::size_t(most_inner_groups_) * token + up.inner_group);
}

// The products with all downs of a stage, quantized.  values: the token's first group in a tile of this width.
void Model::multiply_downs(const LowRankStage& low_rank, int token, const QuantizedGroup* values, int width) {
  float* inner = inner_.data() + std::size_t(token) * most_inner_;
  kernels_->matmul({low_rank.down, nullptr, reinterpret_cast<const std::uint8_t*>(values), 0, width, 1, inner, 0}, 0,
                   low_rank.down.panels());
  for (const LowRankUp& each : low_rank.ups)
    kernels_->quantize(inner + each.inner_row, whole(each.up.rank, kPanelRows), 1, 0, kOutlier,
                       reinterpret_cast<std::uint8_t*>(inner_of(each, token)));
}

// Asks memory for the ups of the matrix's panel, of all adapters of this step, while the base's panel is multiplied.
void Model::ask_for_ups(const Stage& stage, int matrix, int panel) const {
  for (const int number : step_adapters_) {
    if (adapters_[number].stages.empty()) continue;
    for (const LowRankUp& each : adapters_[number].stages[&stage - stages_.data()].ups) {
      const int index = panel - each.first_panel;
      if (each.matrix != matrix || index < 0 || index >= each.panels) continue;
      ask_for(each.up.codes + each.up.panel_bytes() * index, each.up.panel_bytes());
      ask_for(reinterpret_cast<const std::uint8_t*>(each.up.scales + kPanelRows * index), 1);
    }
  }
}

// For the matrix's panels from `begin` to below `end`, of all tokens.
void Model::add_ups(const Stage& stage, int matrix, int begin, int end, const MatmulTask& task) {
  for (int row = 0; row < task.tokens; ++row) {
    const int token = stage.on_outputs ? input_.outputs[row] : row;
    const LowRankStage* low_rank = low_rank_of(stage, token);
    if (!low_rank) continue;
    for (const LowRankUp& each : low_rank->ups) {
      const int first = std::max(begin - each.first_panel, 0), last = std::min(end - each.first_panel, each.panels);
      if (each.matrix != matrix || first >= last) continue;
      const int first_row = each.first_panel * kPanelRows;
      kernels_->add_low_rank({each.up, inner_of(each, token), task.out + task.out_stride * row + first_row,
                              task.matrix.rows - first_row}, first, last);
    }
  }
}

}  // namespace octavo
