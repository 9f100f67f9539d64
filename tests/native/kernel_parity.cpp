// Every instruction set of this machine against the scalar one, bit for bit, and the scalar one against double
// precision: matmuls of every weight type and tile width, attention with both cache types, operations on rows.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "isa/dispatch.h"
#include "model/block_formats.h"
#include "model/low_rank.h"
#include "support/aligned.h"
#include "support/half.h"

using namespace octavo;

namespace {

std::mt19937 random_bits(20261123);
int failures = 0;

float normal() {
  static std::normal_distribution<float> distribution;
  return distribution(random_bits);
}

void expect(bool condition, const char* isa, const char* what, int number) {
  if (condition) return;
  ++failures;
  std::printf("FAILED on %s: %s (%d)\n", isa, what, number);
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

bool near(const std::vector<float>& a, const std::vector<float>& b) {
  double distance = 0, size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    distance += (double(a[i]) - b[i]) * (double(a[i]) - b[i]);
    size += double(b[i]) * b[i];
  }
  return a.size() == b.size() && distance <= 1e-12 * size;
}

// Random blocks whose half-float scales are small and finite; the codes are any bits.
std::vector<std::uint8_t> random_matrix(BlockType type, int rows, int columns) {
  std::vector<std::uint8_t> bytes(row_bytes(type, columns) * rows);
  for (auto& byte : bytes) byte = std::uint8_t(random_bits());
  const auto put_half = [&](std::size_t at, float value) {
    const std::uint16_t half = half_from_float(value);
    std::memcpy(bytes.data() + at, &half, 2);
  };
  const std::size_t size = block_bytes(type);
  for (std::size_t at = 0; at < bytes.size(); at += size) {
    switch (type) {
      case BlockType::F32: { const float value = normal(); std::memcpy(bytes.data() + at, &value, 4); break; }
      case BlockType::F16: put_half(at, normal()); break;
      case BlockType::BF16: case BlockType::Pairs: bytes[at + 1] = std::uint8_t(0x3d | (random_bits() & 0x80)); break;
      case BlockType::Q2_K: put_half(at + 80, 0.01f), put_half(at + 82, 0.02f); break;
      case BlockType::Q3_K: put_half(at + 108, 0.01f); break;
      case BlockType::Q6_K: put_half(at + 208, 0.001f); break;
      case BlockType::TQ1_0: put_half(at + 52, 0.3f); break;
      case BlockType::TQ2_0: put_half(at + 64, 0.3f); break;
      case BlockType::MXFP4: bytes[at] = std::uint8_t(120 + random_bits() % 8); break;
      case BlockType::Q4_1: case BlockType::Q5_1: case BlockType::Q4_K: case BlockType::Q5_K:
        put_half(at, 0.01f), put_half(at + 2, normal() * 0.01f);
        break;
      default: put_half(at, normal() * 0.01f);
    }
  }
  return bytes;
}

std::vector<float> multiply(const Kernels& kernels, const PanelMatrix& matrix, const std::vector<float>& x, int tokens) {
  const bool is_float = matrix.format.is_float();
  const int width = kernels.width(matrix.format, tokens), tiles = (tokens + width - 1) / width;
  const int columns = matrix.columns;
  const bool in_pairs = matrix.format.codes == Codes::Pairs;
  const std::size_t tile_bytes =
      is_float ? columns * width * sizeof(float) / (in_pairs ? 2 : 1) : (columns + kGroup - 1) / kGroup * record_bytes(width);
  // Whatever the buffer held before must not matter: fill it with what would spoil a sum.
  const std::size_t after = in_pairs ? 32 * tile_bytes : 0;  // which the matrix unit reads as if they were tokens
  std::vector<QuantizedGroup> buffer((tile_bytes * tiles + after) / sizeof(QuantizedGroup) + 1);
  std::memset(static_cast<void*>(buffer.data()), 0xff, buffer.size() * sizeof(QuantizedGroup));
  auto* activations = reinterpret_cast<std::uint8_t*>(buffer.data());
  for (int token = 0; token < tokens; ++token) {
    std::uint8_t* tile = activations + tile_bytes * (token / width);
    const float* row = x.data() + std::size_t(token) * columns;
    if (!is_float) kernels.quantize(row, columns, width, token % width, kOutlier, tile);
    for (int column = 0; is_float && column < columns; ++column) {
      const int slot = token % width;
      if (in_pairs) ((std::uint16_t*)tile)[(column / 2 * width + slot) * 2 + column % 2] = bfloat_from_float(row[column]);
      else ((float*)tile)[column * width + slot] = row[column];
    }
  }
  std::vector<float> out(std::size_t(tokens) * matrix.rows);
  kernels.matmul({matrix, nullptr, activations, tile_bytes, width, tokens, out.data(), std::size_t(matrix.rows)}, 0,
                 matrix.panels());
  return out;
}

void check_matmul(BlockType type, int tokens, int columns) {
  const int rows = 37;  // the last panel is not full
  const auto bytes = random_matrix(type, rows, columns);
  PanelMatrix matrix{panel_format(type), rows, columns, nullptr};
  std::vector<std::uint8_t> memory(matrix.panel_bytes() * matrix.panels() + kLine);
  std::uint8_t* data = memory.data() + (kLine - reinterpret_cast<std::uintptr_t>(memory.data()) % kLine);
  for (int panel = 0; panel < matrix.panels(); ++panel)
    pack_panel(type, bytes.data() + row_bytes(type, columns) * panel * kPanelRows,
               std::min(kPanelRows, rows - panel * kPanelRows), columns, data + matrix.panel_bytes() * panel);
  matrix.data = data;
  std::vector<float> x(std::size_t(tokens) * columns);
  for (auto& value : x) value = normal() * (random_bits() % 50 == 0 ? 20.0f : 1.0f);  // with outliers
  if (type == BlockType::Pairs)
    for (auto& value : x) value = float_from_bfloat(bfloat_from_float(value));

  const auto expected = multiply(*scalar_kernels(), matrix, x, tokens);
  for (const Kernels* kernels : available_kernels()) {
    const auto found = multiply(*kernels, matrix, x, tokens);
    // The matrix unit adds the products of even and of odd columns apart.
    const bool apart = type == BlockType::Pairs && kernels->pair_tile == 1;
    expect(apart ? near(found, expected) : same_bits(found, expected), kernels->name, "matmul of type", int(type));
    if (!apart) continue;
    const auto one = multiply(*kernels, matrix, {x.begin(), x.begin() + columns}, 1);
    expect(std::equal(one.begin(), one.end(), found.begin()), kernels->name, "a token alone and in company", int(type));
  }
  std::vector<float> alone(x.begin(), x.begin() + columns);
  const auto first = multiply(*scalar_kernels(), matrix, alone, 1);
  expect(std::equal(first.begin(), first.end(), expected.begin()), "scalar", "a token alone and in company", int(type));

  std::vector<float> row(columns);
  for (int r = 0; r < rows; ++r) {
    dequantize_row(type, bytes.data() + row_bytes(type, columns) * r, columns, row.data());
    for (int token = 0; token < tokens; ++token) {
      // Rounding leaves an error spread evenly over one step of the group's scale: variance step^2 / 12 for each input.
      double sum = 0, size = 0, variance = 0;
      for (int group = 0; group < columns / kGroup; ++group) {
        double largest = 0, weights = 0;
        for (int column = group * kGroup; column < (group + 1) * kGroup; ++column) {
          const double value = x[std::size_t(token) * columns + column], product = double(row[column]) * value;
          sum += product, size += product * product;
          weights += double(row[column]) * row[column];
          largest = std::max(largest, std::fabs(value));
        }
        if (!matrix.format.is_float()) variance += weights * largest * largest / (127.0 * 127.0 * 12.0);
      }
      const double limit = 6 * std::sqrt(variance) + 1e-5 * std::sqrt(size) + 1e-6;
      expect(std::fabs(sum - expected[std::size_t(token) * rows + r]) < limit, "scalar", "matmul near doubles, type",
             int(type));
    }
  }
}

// A U8 matrix in two planes: with no floor the sums of the whole matrix, bit for bit; with one, only panels that reach it.
void check_refinement(int tokens) {
  const int rows = 64, columns = 256, width = tile_width(tokens, kTile), tiles = (tokens + width - 1) / width;
  const auto bytes = random_matrix(BlockType::Q8_0, rows, columns);
  PanelMatrix whole{panel_format(BlockType::Q8_0), rows, columns, nullptr}, upper = whole;
  upper.format.codes = Codes::Upper;
  AlignedBuffer<std::uint8_t> panels(whole.panel_bytes() * whole.panels()), planes(upper.panel_bytes() * upper.panels());
  const std::size_t lower_bytes = code_bytes(Codes::Upper) * upper.groups();
  AlignedBuffer<std::uint8_t> lower(lower_bytes * upper.panels());
  for (int panel = 0; panel < whole.panels(); ++panel) {
    const std::uint8_t* first = bytes.data() + row_bytes(BlockType::Q8_0, columns) * panel * kPanelRows;
    pack_panel(BlockType::Q8_0, first, kPanelRows, columns, panels.data() + whole.panel_bytes() * panel);
    pack_planes(first, kPanelRows, columns, planes.data() + upper.panel_bytes() * panel, lower.data() + lower_bytes * panel);
  }
  whole.data = panels.data(), upper.data = planes.data();
  std::vector<float> x(std::size_t(tokens) * columns);
  for (auto& value : x) value = normal() * (random_bits() % 50 == 0 ? 20.0f : 1.0f);
  const auto exact = multiply(*scalar_kernels(), whole, x, tokens), coarse = multiply(*scalar_kernels(), upper, x, tokens);
  AlignedBuffer<std::uint8_t> activations(std::size_t(columns / kGroup) * record_bytes(width) * tiles);
  const std::size_t tile_bytes = columns / kGroup * record_bytes(width);
  for (const Kernels* kernels : available_kernels()) {
    expect(same_bits(multiply(*kernels, upper, x, tokens), coarse), kernels->name, "coarse matmul", tokens);
    for (int token = 0; token < tokens; ++token)
      kernels->quantize(x.data() + std::size_t(token) * columns, columns, width, token % width, kOutlier,
                        activations.data() + tile_bytes * (token / width));
    for (float margin : {1e30f, 1.0f}) {
      std::vector<float> out = coarse, floors(tokens);
      for (int token = 0; token < tokens; ++token)
        floors[token] = kernels->largest(coarse.data() + std::size_t(token) * rows, rows) - margin;
      const MatmulTask task{upper, nullptr, activations.data(), tile_bytes, width, tokens, out.data(), rows};
      kernels->refine({task, lower.data(), floors.data()}, 0, upper.panels());
      for (int token = 0; token < tokens; ++token)
        for (int row = 0; row < rows; row += kPanelRows) {
          const float* from = coarse.data() + std::size_t(token) * rows + row;
          const bool likely = *std::max_element(from, from + kPanelRows) >= floors[token];
          const float* wanted = (likely ? exact.data() : coarse.data()) + std::size_t(token) * rows + row;
          expect(!std::memcmp(out.data() + std::size_t(token) * rows + row, wanted, kPanelRows * sizeof(float)),
                 kernels->name, "refined panel", row);
        }
    }
  }
}

std::vector<float> attend_all(const Kernels& kernels, CacheType type, int keys, int window, bool split) {
  const int width = 64, group = 3, blocks = (keys + kBlockTokens - 1) / kBlockTokens;
  std::mt19937 seeded(7);
  std::normal_distribution<float> distribution;
  CacheLayer cache{nullptr, type, width, 0};
  cache.chunk_stride = cache.bytes(1);
  std::vector<float> cache_memory(cache.chunk_stride * ((blocks - 1) / kChunkBlocks + 1) / sizeof(float));
  cache.data = (std::uint8_t*)cache_memory.data();
  std::vector<std::int32_t> table(blocks), positions{keys - 1};
  for (int block = 0; block < blocks; ++block) table[block] = blocks - 1 - block;
  std::vector<float> key(width), value(width), query(group * width), out(group * width);
  for (int position = 0; position < keys; ++position) {
    for (int i = 0; i < width; ++i) key[i] = distribution(seeded), value[i] = distribution(seeded);
    kernels.store_cache(cache, table[position / kBlockTokens], position % kBlockTokens, 0, key.data(), value.data());
  }
  for (auto& element : query) element = distribution(seeded);
  std::vector<float> scratch(attention_scratch(width));
  AttentionTask task{};
  task.cache = cache, task.blocks = table.data(), task.positions = positions.data(), task.queries = query.data();
  task.query_stride = task.out_stride = group * width, task.out = out.data(), task.group = group, task.rows = group;
  task.keys = keys, task.window = window, task.causal = true, task.scale = 0.125f, task.heads = group;
  const int splits = (keys - 1) / kSplitTokens + 1;
  task.split_end = splits;
  if (!split) {
    kernels.attend(task, scratch.data());
    return out;
  }
  std::vector<float> partials(std::size_t(group) * splits * (width + 16));
  task.partials = partials.data(), task.row_stride = std::size_t(splits) * (width + 16);
  for (int one = splits - 1; one >= 0; --one) {
    task.split_begin = one, task.split_end = one + 1;
    kernels.attend(task, scratch.data());
  }
  for (int head = 0; head < group; ++head)
    kernels.merge(type, partials.data() + task.row_stride * head, splits, width, out.data() + head * width);
  return out;
}

void check_attention(int keys, int window) {
  for (CacheType type : {CacheType::F16, CacheType::I8}) {
    const auto expected = attend_all(*scalar_kernels(), type, keys, window, false);
    for (const Kernels* kernels : available_kernels()) {
      expect(same_bits(attend_all(*kernels, type, keys, window, false), expected), kernels->name, "attention", keys);
      expect(same_bits(attend_all(*kernels, type, keys, window, true), expected), kernels->name, "split attention", keys);
    }
  }
}

// A pair packed as an adapter's, for rows that begin and end within panels: what one token gets added.
std::vector<float> add_pair(const Kernels& kernels, const LowRankStage& stage, const std::vector<float>& x, int rows) {
  const int columns = int(x.size());
  std::vector<QuantizedGroup> values(2 * ((columns + kGroup - 1) / kGroup)), inner(2 * stage.inner_groups);
  kernels.quantize(x.data(), columns, 1, 0, kOutlier, reinterpret_cast<std::uint8_t*>(values.data()));
  std::vector<float> products(stage.down.rows), out(rows, 1.0f);
  kernels.matmul({stage.down, nullptr, reinterpret_cast<const std::uint8_t*>(values.data()), 0, 1, 1, products.data(), 0}, 0,
                 stage.down.panels());
  const LowRankUp& each = stage.ups[0];
  kernels.quantize(products.data(), stage.down.rows, 1, 0, kOutlier, reinterpret_cast<std::uint8_t*>(inner.data()));
  const int first = each.first_panel * kPanelRows;
  kernels.add_low_rank({each.up, inner.data(), out.data() + first, rows - first}, 0, each.panels);
  return out;
}

void check_low_rank(int rank) {
  const int first_row = 21, rows = 52, columns = 96, all = first_row + rows;  // the last panel is not full
  std::vector<float> down(std::size_t(rank) * columns), up(std::size_t(rows) * rank), x(columns);
  for (auto& value : down) value = 1e-3f * normal();
  for (auto& value : up) value = 1e-4f * normal();
  for (auto& value : x) value = 1e3f * normal();
  const Adapter adapter = pack_adapter({{{0, first_row, rank, columns, rows, down.data(), up.data()}}});
  const auto expected = add_pair(*scalar_kernels(), adapter.stages[0], x, all);
  for (const Kernels* kernels : available_kernels())
    expect(same_bits(add_pair(*kernels, adapter.stages[0], x, all), expected), kernels->name, "low-rank pair", rank);
  // Rounding errs with the size of what is multiplied, also where products happen to cancel.
  double error = 0, size = 0, squares = 0;
  for (const float value : x) squares += double(value) * value;
  for (int row = 0; row < all; ++row) {
    double sum = 0;
    for (int k = 0; row >= first_row && k < rank; ++k) {
      double product = 0, weights = 0;
      for (int i = 0; i < columns; ++i) {
        product += double(down[k * columns + i]) * x[i];
        weights += double(down[k * columns + i]) * down[k * columns + i];
      }
      const double factor = up[(row - first_row) * rank + k];
      size += factor * factor * weights * squares / columns;
      sum += product * factor;
    }
    const double found = double(expected[row]) - 1.0;
    error += (found - sum) * (found - sum);
    expect(row >= first_row || found == 0.0, "scalar", "rows that a pair has not", rank);
  }
  expect(error < 4e-4 * size, "scalar", "low-rank pair near doubles", rank);  // 2 % of its size
}

void check_rows() {
  const int count = 192;
  std::vector<float> in(count), in2(count), weight(count), bias(count);
  for (int i = 0; i < count; ++i) in[i] = 4 * normal(), in2[i] = normal(), weight[i] = normal(), bias[i] = normal();
  for (int kind = 0; kind <= int(RowKind::SoftCap); ++kind) {
    std::vector<float> expected;
    for (const Kernels* kernels : {scalar_kernels(), available_kernels().front(), available_kernels()[available_kernels().size() / 2]}) {
      std::vector<float> out = in2;
      kernels->row({RowKind(kind), out.data(), in.data(), in2.data(), weight.data(), bias.data(), count, 64, 64, 0.5f});
      if (expected.empty()) expected = out;
      expect(same_bits(out, expected), kernels->name, "row operation", kind);
    }
  }
}

}  // namespace

int main() {
  for (int type : {0, 1, 2, 3, 6, 7, 8, 10, 11, 12, 13, 14, 20, 23, 30, 34, 35, 39, int(BlockType::Pairs)})
    for (int tokens : {1, 2, 3, 5, 8, 11, 16, 21, 38, 45}) check_matmul(BlockType(type), tokens, 512);
  for (BlockType type : {BlockType::Q4_1, BlockType::Q8_0, BlockType::Q6_K, BlockType::Q2_K})
    check_matmul(type, 150, 2304);  // more than a stretch of tokens and of groups
  for (int tokens : {1, 2, 3, 5, 8, 11, 16, 21}) check_refinement(tokens);
  for (int keys : {1, 31, 33, 256, 257, 700})
    for (int window : {0, 40, 300}) check_attention(keys, window);
  for (int rank : {1, 4, 7, 16, 33, 64}) check_low_rank(rank);
  check_rows();
  for (const Kernels* kernels : available_kernels()) std::printf("%s ", kernels->name);
  std::printf("%s\n", failures ? "FAILED" : "agree");
  return failures != 0;
}
