// One step: the plan's stages, run by all threads together for a batch of tokens.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "model/model.h"
#include "support/half.h"

namespace octavo {
namespace {

// Row programs of so few tokens are run by the last thread to arrive at a barrier: cheaper than one barrier more.
constexpr int kSerialRows = 3;

void require(bool condition, const std::string& what) {
  if (!condition) throw std::invalid_argument(what);
}

}  // namespace

float* Model::at(View view, int row) {
  Buffer& buffer = buffers_[view.buffer];
  return buffer.data.data() + std::size_t(buffer.width) * row + view.offset;
}

void Model::check(const StepInput& input) const {
  require(input.token_count > 0 && input.token_count <= max_tokens_,
          "a step takes 1 to " + std::to_string(max_tokens_) + " tokens, not " + std::to_string(input.token_count));
  for (int t = 0; t < input.token_count; ++t) {
    const int row = input.rows[t], position = input.positions[t];
    require(row >= 0 && row < input.sequence_count, "a token's row must be one of the block tables");
    require(position >= 0 && position / kBlockTokens < input.table_width, "a token's position is beyond its block table");
    const bool follows = t > 0 && input.rows[t - 1] == row;
    require(!follows || position == input.positions[t - 1] + 1, "a sequence's new tokens must follow each other");
    require(tables_.empty() || (input.tokens[t] >= 0 && input.tokens[t] < tables_[0].rows),
            "token " + std::to_string(input.tokens[t]) + " is outside the vocabulary");
    if (!cache_layers_) continue;
    for (int block = 0; block <= position / kBlockTokens && !follows; ++block) {
      const int id = input.block_tables[std::size_t(row) * input.table_width + block];
      require(id >= 0 && id < cache_blocks_, "a block table names a block that the cache does not have");
    }
    const int id = input.block_tables[std::size_t(row) * input.table_width + position / kBlockTokens];
    require(id >= 0 && id < cache_blocks_, "a block table names a block that the cache does not have");
  }
  require((input.states != nullptr) == (state_width_ > 0), "states are for the plans that take them, which need them");
  require(cache_layers_ || !input.share_count, "shares need a cache");
  for (int i = 0; i < input.share_count; ++i) {
    const int token = input.shares[2 * i], row = input.shares[2 * i + 1];
    require(token >= 0 && token < input.token_count && row >= 0 && row < input.sequence_count,
            "a share must name a token of the step and a row of the block tables");
    const int id = input.block_tables[std::size_t(row) * input.table_width + input.positions[token] / kBlockTokens];
    require(id >= 0 && id < cache_blocks_, "a block table names a block that the cache does not have");
  }
  for (int r = 0; r < input.output_count; ++r)
    require(input.outputs[r] >= 0 && input.outputs[r] < input.token_count, "an output must be one of the step's tokens");
  for (int row = 0; input.adapters && row < input.sequence_count; ++row)
    require(input.adapters[row] >= -1 && input.adapters[row] < int(adapters_.size()), "a row names an adapter that is not there");
}

void Model::prepare(const StepInput& input) {
  input_ = input;
  stopped_ = false;
  cancelled_.store(false);
  sequences_.clear();
  token_sequence_.resize(input.token_count);
  for (int t = 0; t < input.token_count; ++t) {
    if (t == 0 || input.rows[t] != input.rows[t - 1])
      sequences_.push_back({t, 0, 0, input.adapters ? input.adapters[input.rows[t]] : -1,
                            input.block_tables + std::size_t(input.rows[t]) * input.table_width});
    sequences_.back().count++;
    sequences_.back().keys = input.positions[t] + 1;
    token_sequence_[t] = int(sequences_.size()) - 1;
  }
  for (Rope& rope : ropes_) {
    const std::size_t half = rope.frequencies.size();
    for (int t = 0; t < input.token_count; ++t) {
      for (std::size_t i = 0; i < half; ++i) {
        const double angle = double(input.positions[t]) * double(rope.frequencies[i]);
        rope.cosines[t * half + i] = float(std::cos(angle) * rope.factor);
        rope.sines[t * half + i] = float(std::sin(angle) * rope.factor);
      }
    }
  }
  plan_attention();
  prepare_low_rank();
  if (lower_plane_.size() && input.logits) {
    floors_.resize(input.output_count);
    piece_largest_.resize(std::size_t(matmul_pieces(stages_.back())) * input.output_count);
  }
}

// Cuts attention into pieces of up to 8 rows of one key-value head.  Where that gives the threads too little to
// share, the keys are cut too, at the fixed splits, and the row program that follows folds the partial sums in order:
// the same operations as a piece that does all splits by itself.
void Model::plan_attention() {
  attention_pieces_.clear();
  partial_ = false;
  if (!cache_layers_) return;
  const int group = heads_ / cache_heads_;
  splits_ = 1;
  for (int s = int(sequences_.size()) - 1; s >= 0; --s) {
    const Sequence& sequence = sequences_[s];
    const int rows = sequence.count * group, splits = (sequence.keys - 1) / kSplitTokens + 1;
    splits_ = std::max(splits_, splits);
    for (int first = (rows - 1) / kRowTile * kRowTile; first >= 0; first -= kRowTile)  // the longest first
      for (int head = 0; head < cache_heads_; ++head)
        attention_pieces_.push_back({s, head, first, std::min(kRowTile, rows - first), 0, splits});
  }
  if (splits_ == 1 || int(attention_pieces_.size()) >= 4 * pool_.threads()) return;
  partial_ = true;
  std::vector<AttentionPiece> cut;
  int all_splits = 0;
  for (const AttentionPiece& piece : attention_pieces_) all_splits += piece.split_end;
  // Each piece prepares its queries anew, so it takes several splits where enough pieces are left to share.
  const int together = std::max(1, all_splits / (6 * pool_.threads()));
  for (const AttentionPiece& piece : attention_pieces_)
    for (int split = 0; split < piece.split_end; split += together) {
      cut.push_back(piece);
      cut.back().split_begin = split;
      cut.back().split_end = std::min(split + together, piece.split_end);
    }
  attention_pieces_ = std::move(cut);
  const std::size_t needed =
      std::size_t(input_.token_count) * heads_ * splits_ * (cache_shape_.head_width + 16);
  if (partials_.size() < needed) partials_ = AlignedBuffer<float>(needed);
}

void Model::step(const StepInput& input) {
  std::lock_guard<std::mutex> lock(mutex_);
  check(input);
  prepare(input);
  pool_.run([this](int thread) { run(thread); });
  if (stopped_) throw Cancelled();
  for (int r = 0; input.hidden && r < input.output_count; ++r)
    std::memcpy(input.hidden + std::size_t(r) * hidden_size_, at(hidden_, input.outputs[r]),
                std::size_t(hidden_size_) * sizeof(float));
}

void Model::copy_block(int from, int to) {
  std::lock_guard<std::mutex> lock(mutex_);
  require(from >= 0 && from < cache_blocks_ && to >= 0 && to < cache_blocks_, "the cache does not have this block");
  CacheLayer layer = cache_shape_;
  const std::size_t bytes = layer.tile_bytes();
  for (int index = 0; index < cache_layers_; ++index) {
    layer.data = cache_.data() + cache_shape_.bytes(cache_heads_) * index;
    for (int head = 0; head < cache_heads_; ++head) {
      std::memcpy(layer.keys(to, head), layer.keys(from, head), bytes);
      std::memcpy(layer.values(to, head), layer.values(from, head), bytes);
    }
  }
}

void Model::run(int thread) {
  for (const Stage& stage : stages_) {
    const int rows = rows_of(stage);
    const bool serial = rows <= kSerialRows;
    pool_.barrier(thread, [&] {
      stopped_ = cancelled_.load(std::memory_order_relaxed);
      row_share_.reset();
      sweep_share_.reset();
      for (int row = 0; serial && row < rows; ++row) run_rows(stage, row);
    });
    if (stopped_) return;
    if (!serial) {
      row_share_.share(thread, rows, [&](int row) { run_rows(stage, row); });
      pool_.barrier(thread, [] {});
    }
    if (stage.attention) {
      sweep_share_.share(thread, int(attention_pieces_.size()),
                         [&](int piece) { run_attention_piece(*stage.attention, attention_pieces_[piece], thread); });
    } else if (!stage.is_logits || input_.logits) {
      sweep_share_.share(thread, matmul_pieces(stage), [&](int piece) { run_matmul_piece(stage, piece); });
      if (stage.is_logits && lower_plane_.size()) {
        pool_.barrier(thread, [&] {
          set_floors(stage);
          sweep_share_.reset();
        });
        sweep_share_.share(thread, matmul_pieces(stage), [&](int piece) { refine_piece(stage, piece); });
      }
    }
    if (&stage != &stages_.back()) prefetch_sweep(*(&stage + 1), thread);
  }
}

void Model::run_rows(const Stage& stage, int row) {
  const int token = stage.on_outputs ? input_.outputs[row] : row;
  if (stage.merges && partial_) merge_partials(stage, token);
  for (const RowOperation& operation : stage.rows) run_row(operation, token);
  if (stage.matmuls.empty()) return;
  const LowRankStage* low_rank = low_rank_of(stage, token);
  bool quantize = low_rank != nullptr, pack = false, pair = false;
  for (const MatmulPart& part : stage.matmuls) {
    const PanelFormat& format = matrices_[part.matrix].format;
    (format.codes == Codes::Pairs ? pair : format.is_float() ? pack : quantize) = true;
  }
  const float* in = at(stage.matmul_input, token);
  const std::size_t columns = stage.matmul_columns;
  const int tokens = rows_of(stage);
  if (quantize) {
    const int width = tile_width(tokens, kernels_->tile), slot = row % width;
    std::uint8_t* records = quantized_.data() + quantized_tile_bytes(columns, width) * (row / width);
    const bool adapted = input_.adapters && sequences_[token_sequence_[token]].adapter >= 0;
    kernels_->quantize(in, int(columns), width, slot, adapted ? kAdaptedOutlier : kOutlier, records);
    if (low_rank) multiply_downs(*low_rank, token, (const QuantizedGroup*)records + slot, width);
  }
  if (pack) {
    const int width = tile_width(tokens, kTile);
    float* out = packed_.data() + columns * width * (row / width) + row % width;
    for (std::size_t column = 0; column < columns; ++column) out[column * width] = in[column];
  }
  if (pair) {
    const int width = tile_width(tokens, kernels_->pair_tile);
    auto* out = reinterpret_cast<std::uint32_t*>(packed_.data()) + columns / 2 * width * (row / width) + row % width;
    for (std::size_t column = 0; column < columns; column += 2)
      out[column / 2 * width] = bfloat_from_float(in[column]) | std::uint32_t(bfloat_from_float(in[column + 1])) << 16;
  }
}

void Model::run_row(const RowOperation& operation, int token) {
  switch (operation.operation) {
    case Operation::Embed: {
      const Table& table = tables_[operation.table];
      const int index = operation.width ? input_.positions[token] + operation.stride : input_.tokens[token];
      dequantize_row(table.type, table.bytes + row_bytes(table.type, table.columns) * index, table.columns,
                     at(operation.out, token));
      return;
    }
    case Operation::State:
      std::memcpy(at(operation.out, token), input_.states + std::size_t(token) * operation.count,
                  std::size_t(operation.count) * sizeof(float));
      return;
    case Operation::AddVector: {
      float* out = at(operation.out, token);
      const float* vector = vectors_[operation.weight].data();
      for (int i = 0; i < operation.count; ++i) out[i] += vector[i];
      return;
    }
    case Operation::StoreCache: {
      const int position = input_.positions[token], width = cache_shape_.head_width;
      CacheLayer layer = cache_shape_;
      layer.data = cache_.data() + cache_shape_.bytes(cache_heads_) * operation.table;
      const auto store = [&](const std::int32_t* blocks) {
        for (int head = 0; head < cache_heads_; ++head)
          kernels_->store_cache(layer, blocks[position / kBlockTokens], position % kBlockTokens, head,
                                at(operation.in, token) + head * width, at(operation.in2, token) + head * width);
      };
      store(sequences_[token_sequence_[token]].blocks);
      for (int i = 0; i < input_.share_count; ++i)
        if (input_.shares[2 * i] == token)
          store(input_.block_tables + std::size_t(input_.shares[2 * i + 1]) * input_.table_width);
      return;
    }
    case Operation::Rope:
    case Operation::Row: {
      const auto vector = [&](int id) { return id < 0 ? nullptr : vectors_[id].data(); };
      RowTask task{operation.kind, at(operation.out, token), nullptr, nullptr, vector(operation.weight),
                   vector(operation.bias), operation.count, operation.width, operation.stride, operation.number};
      if (operation.in.buffer >= 0) task.in = at(operation.in, token);
      if (operation.in2.buffer >= 0) task.in2 = at(operation.in2, token);
      if (operation.operation == Operation::Rope) {
        Rope& rope = ropes_[operation.table];
        task.weight = rope.cosines.data() + rope.frequencies.size() * token;
        task.bias = rope.sines.data() + rope.frequencies.size() * token;
      }
      kernels_->row(task);
    }
  }
}

void Model::merge_partials(const Stage& stage, int token) {
  const Stage& before = *(&stage - 1);
  const int width = cache_shape_.head_width;
  const int splits = (sequences_[token_sequence_[token]].keys - 1) / kSplitTokens + 1;
  for (int head = 0; head < heads_; ++head) {
    const std::size_t row = std::size_t(token) * heads_ + head;
    kernels_->merge(cache_shape_.type, partials_.data() + row * splits_ * (width + 16), splits, width,
                    at(before.attention->out, token) + head * width);
  }
}

void Model::run_attention_piece(const AttentionPart& part, const AttentionPiece& piece, int thread) {
  const Sequence& sequence = sequences_[piece.sequence];
  const int group = heads_ / cache_heads_, width = cache_shape_.head_width;
  AttentionTask task{};
  task.cache = cache_shape_;
  task.cache.data = cache_.data() + cache_shape_.bytes(cache_heads_) * part.layer;
  task.blocks = sequence.blocks;
  task.positions = input_.positions + sequence.first;
  task.queries = at(part.query, sequence.first);
  task.query_stride = buffers_[part.query.buffer].width;
  task.out = at(part.out, sequence.first);
  task.out_stride = buffers_[part.out.buffer].width;
  task.key_value_head = piece.head;
  task.group = group;
  task.first_row = piece.first_row;
  task.rows = piece.rows;
  task.keys = sequence.keys;
  task.window = part.window;
  task.causal = part.causal;
  task.scale = part.scale;
  task.softcap = part.softcap;
  task.split_begin = piece.split_begin;
  task.split_end = piece.split_end;
  if (partial_) {
    // Row token * heads + head: the rows of a group lie together, those of the next token heads further on.
    task.row_stride = std::size_t(splits_) * (width + 16);
    task.partials = partials_.data() + (std::size_t(sequence.first) * heads_ + std::size_t(piece.head) * group) * task.row_stride;
    task.heads = heads_;
  }
  kernels_->attend(task, attention_scratch_.data() + attention_scratch(width) * thread);
}

}  // namespace octavo
