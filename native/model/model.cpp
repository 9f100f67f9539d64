// Building a model: buffers, vectors, matrices, stages.  Running it is in step.cpp.
#include "model/model.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "support/half.h"

namespace octavo {
namespace {

void require(bool condition, const char* what) {
  if (!condition) throw std::invalid_argument(what);
}

// Rounds 32 numbers to a Q4_0 block: the largest becomes -8 of its scale.
void round_block(const float* values, std::uint8_t* block) {
  float largest = 0.0f;
  for (int i = 0; i < kGroup; ++i)
    if (std::abs(values[i]) > std::abs(largest)) largest = values[i];
  const std::uint16_t scale = half_from_float(largest / -8.0f);
  std::memcpy(block, &scale, sizeof(scale));
  const float inverse = largest == 0.0f ? 0.0f : -8.0f / largest;
  const auto code = [&](int i) { return std::uint8_t(std::clamp(std::floor(values[i] * inverse + 8.5f), 0.0f, 15.0f)); };
  for (int i = 0; i < kGroup / 2; ++i) block[2 + i] = std::uint8_t(code(i) | code(i + kGroup / 2) << 4);
}

// to: Q4_0 or Pairs.
void pack_rounded(BlockType type, BlockType to, const std::uint8_t* bytes, int rows, int columns, std::uint8_t* panel) {
  const std::size_t size = block_bytes(to), elements = block_elements(to);
  std::vector<float> values(columns);
  std::vector<std::uint8_t> blocks(row_bytes(to, columns) * rows);
  std::uint8_t* block = blocks.data();
  for (int row = 0; row < rows; ++row) {
    dequantize_row(type, bytes + row_bytes(type, columns) * row, columns, values.data());
    for (std::size_t at = 0; at < values.size(); at += elements, block += size) {
      const std::uint16_t bfloat = bfloat_from_float(values[at]);
      if (to == BlockType::Q4_0) round_block(values.data() + at, block);
      else std::memcpy(block, &bfloat, sizeof bfloat);
    }
  }
  pack_panel(to, blocks.data(), rows, columns, panel);
}

int whole_panels(int count) { return (count + kPanelRows - 1) / kPanelRows * kPanelRows; }

}  // namespace

Model::Model(const Kernels* kernels, int threads, int max_tokens)
    : kernels_(kernels), pool_(threads), max_tokens_(max_tokens), row_share_(pool_.threads()), sweep_share_(pool_.threads()) {
  require(max_tokens > 0, "max_tokens must be positive");
}

int Model::buffer(int width) {
  require(width > 0, "a buffer's width must be positive");
  const int padded = whole_panels(width);
  buffers_.push_back({padded, AlignedBuffer<float>(std::size_t(padded) * max_tokens_)});
  return int(buffers_.size()) - 1;
}

int Model::vector(const float* values, int count) {
  AlignedBuffer<float> copy(whole_panels(count));
  std::copy(values, values + count, copy.data());
  vectors_.push_back(std::move(copy));
  return int(vectors_.size()) - 1;
}

int Model::matrix(int type, int rows, int columns, const std::uint8_t* bytes, Packing packing) {
  const BlockType block = block_type(type);
  require(rows > 0 && columns > 0, "a matrix must have rows and columns");
  require(columns % block_elements(block) == 0, "a matrix's columns must be whole blocks of its type");
  const BlockType packed = packing == Packing::Exact ? block : packing == Packing::Coarse ? BlockType::Q4_0 : BlockType::Pairs;
  require(columns % block_elements(packed) == 0, "a coarse matrix's columns must be in 32s");
  require(packed != BlockType::Pairs || columns % kGroup == 0, "the columns of a matrix in pairs must be a multiple of 32");
  sources_.push_back({block, rows, columns, bytes, packed});
  return int(sources_.size()) - 1;
}

int Model::table(int type, int rows, int columns, const std::uint8_t* bytes) {
  const BlockType block = block_type(type);
  require(columns % block_elements(block) == 0, "a table's columns must be whole blocks of its type");
  tables_.push_back({block, rows, columns, bytes});
  return int(tables_.size()) - 1;
}

int Model::rope(const std::vector<float>& frequencies, float attention_factor) {
  const std::size_t size = frequencies.size() * max_tokens_;
  ropes_.push_back({frequencies, attention_factor, AlignedBuffer<float>(size), AlignedBuffer<float>(size)});
  return int(ropes_.size()) - 1;
}

void Model::cache(int layers, int heads, int key_value_heads, int head_width, int blocks, CacheType type) {
  require(head_width % 16 == 0 && head_width > 0 && head_width <= kMaxHeadWidth,
          "the head width must be a multiple of 16, and at most 1024");
  require(key_value_heads > 0 && heads % key_value_heads == 0, "the heads must be a multiple of the key-value heads");
  require(layers > 0 && blocks > 0, "the cache must have layers and blocks");
  cache_layers_ = layers;
  cache_heads_ = key_value_heads;
  heads_ = heads;
  cache_blocks_ = blocks;
  cache_shape_ = {nullptr, type, head_width, 0};
  cache_shape_.chunk_stride = cache_shape_.bytes(key_value_heads) * layers;
  cache_ = AlignedBuffer<std::uint8_t>(cache_shape_.chunk_stride * ((blocks - 1) / kChunkBlocks + 1));
}

Stage& Model::open_stage() {
  const bool closed = stages_.empty() || !stages_.back().matmuls.empty() || stages_.back().attention;
  if (closed) {
    const bool merges = !stages_.empty() && stages_.back().attention.has_value();
    const bool on_outputs = !stages_.empty() && stages_.back().on_outputs;
    stages_.emplace_back();
    stages_.back().merges = merges;
    stages_.back().on_outputs = on_outputs;
  }
  return stages_.back();
}

void Model::add_row(const RowOperation& operation) { open_stage().rows.push_back(operation); }

void Model::add_state(View out, int width) {
  require(state_width_ == 0 && width > 0, "a plan takes one kind of states");
  require(out.offset >= 0 && out.offset + width <= buffers_.at(out.buffer).width, "a state must fit its buffer");
  state_width_ = width;
  RowOperation operation{Operation::State, {}, out, {}, {}};
  operation.count = width;
  add_row(operation);
}

void Model::add_matmul(View input, int columns, std::vector<MatmulPart> parts) {
  Stage& stage = open_stage();
  require(!parts.empty(), "a matmul needs at least one matrix");
  for (const MatmulPart& part : parts) {
    const Source& source = sources_.at(part.matrix);
    require(source.columns == columns, "a matrix's columns must equal its input's width");
    require(part.out.buffer < 0 || part.out.offset + source.rows <= buffers_.at(part.out.buffer).width,
            "a matmul's result must fit its buffer");
    require(part.out.offset % kPanelRows == 0, "a matmul's result must begin at a multiple of 16");
  }
  stage.matmuls = std::move(parts);
  stage.matmul_input = input;
  stage.matmul_columns = columns;
}

void Model::add_attention(const AttentionPart& part) {
  require(part.layer >= 0 && part.layer < cache_layers_, "attention names a layer that the cache does not have");
  require(part.out.offset == 0, "attention writes whole rows of its buffer");
  open_stage().attention = part;
}

void Model::select_outputs(View hidden, int hidden_size) {
  hidden_ = hidden;
  hidden_size_ = hidden_size;
  stages_.emplace_back();
  stages_.back().merges = stages_.size() > 1 && stages_[stages_.size() - 2].attention.has_value();
  stages_.back().on_outputs = true;
}

void Model::add_logits(View input, int columns, int matrix, float softcap, float margin) {
  vocabulary_size_ = sources_.at(matrix).rows;
  require(softcap == 0.0f || vocabulary_size_ % kPanelRows == 0, "capped logits need a vocabulary in 16s");
  logit_softcap_ = softcap;
  logit_margin_ = margin;
  // A cap would have to wait for the second pass; the models that have one have no 8-bit head.
  sources_[matrix].in_planes = std::isfinite(margin) && softcap == 0.0f && vocabulary_size_ % kPanelRows == 0 &&
                               sources_[matrix].type == BlockType::Q8_0;
  add_matmul(input, columns, {{matrix, -1, View{}}});
  stages_.back().is_logits = true;
}

void Model::finish(const std::function<void()>& part_done) {
  constexpr int kPiece = 8;  // panels
  constexpr std::size_t kPart = std::size_t(8) << 20;  // bytes packed between calls of part_done
  struct Piece { int matrix, begin, end; };
  std::vector<Piece> pieces;
  // All matrices lie in one stretch of memory in the order of their use: on large pages, and what is read ahead at the
  // end of one is the beginning of the next.
  std::size_t bytes = 0;
  std::vector<std::size_t> offsets;
  for (const Source& source : sources_) {
    PanelMatrix matrix{panel_format(source.packed), source.rows, source.columns, nullptr};
    if (source.in_planes) {
      matrix.format.codes = Codes::Upper;
      lower_plane_ = AlignedBuffer<std::uint8_t>(code_bytes(Codes::Upper) * matrix.groups() * matrix.panels());
    }
    for (int begin = 0; begin < matrix.panels(); begin += kPiece)
      pieces.push_back({int(matrices_.size()), begin, std::min(begin + kPiece, matrix.panels())});
    offsets.push_back(bytes);
    bytes += (matrix.panel_bytes() * matrix.panels() + kLine - 1) / kLine * kLine;
    matrices_.push_back(matrix);
  }
  weights_ = AlignedBuffer<std::uint8_t>(bytes);
  for (std::size_t i = 0; i < matrices_.size(); ++i) matrices_[i].data = weights_.data() + offsets[i];
  const auto pack = [&](const Piece& piece) {
    const Source& source = sources_[piece.matrix];
    const PanelMatrix& matrix = matrices_[piece.matrix];
    for (int panel = piece.begin; panel < piece.end; ++panel) {
      const int row = panel * kPanelRows, rows = std::min(kPanelRows, source.rows - row);
      const std::uint8_t* first_row = source.bytes + row_bytes(source.type, source.columns) * row;
      std::uint8_t* packed = weights_.data() + offsets[piece.matrix] + matrix.panel_bytes() * panel;
      if (source.in_planes)
        pack_planes(first_row, rows, source.columns, packed,
                    lower_plane_.data() + code_bytes(Codes::Upper) * matrix.groups() * panel);
      else if (source.packed != source.type)
        pack_rounded(source.type, source.packed, first_row, rows, source.columns, packed);
      else
        pack_panel(source.type, first_row, rows, source.columns, packed);
    }
  };
  for (std::size_t begin = 0, end = 0; begin < pieces.size(); begin = end) {
    for (std::size_t part = 0; end < pieces.size() && part < kPart; ++end)
      part += matrices_[pieces[end].matrix].panel_bytes() * (pieces[end].end - pieces[end].begin);
    pool_.for_each(int(end - begin), [&](int index) { pack(pieces[begin + index]); });
    part_done();
  }
  for (Source& source : sources_) source.bytes = nullptr;

  std::size_t quantized = 0, packed = 0;
  const int slots = (max_tokens_ + kernels_->tile - 1) / kernels_->tile * kernels_->tile;
  for (const Stage& stage : stages_) {
    for (const MatmulPart& part : stage.matmuls) {
      const std::size_t columns = stage.matmul_columns;
      if (matrices_[part.matrix].format.is_float()) packed = std::max(packed, columns * slots);
      quantized = std::max(quantized, quantized_tile_bytes(columns, slots));  // of float matrices too, for adapters
    }
  }
  quantized_ = AlignedBuffer<std::uint8_t>(quantized);
  packed_ = AlignedBuffer<float>(packed);
  if (cache_layers_) attention_scratch_ = AlignedBuffer<float>(attention_scratch(cache_shape_.head_width) * pool_.threads());
}

}  // namespace octavo
