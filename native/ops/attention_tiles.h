// The two ways of keeping keys and values, behind one set of names: HalfTiles and ByteTiles.  A tile is what one
// block of 32 tokens holds for one key-value head.  Included by ops/attention.h.
#pragma once
#include <limits>
#include <type_traits>

#include "ops/kernels.h"
#include "ops/rows.h"

namespace octavo {
namespace {

// What a tile of rows sees: the row's query, and the positions [first, last] it may look at.
struct Rows {
  const float* query[kRowTile];
  int first[kRowTile];
  int last[kRowTile];
  int lowest = std::numeric_limits<int>::max();
  int highest = -1;
};

inline Rows visible_rows(const AttentionTask& task) {
  Rows rows;
  for (int r = 0; r < task.rows; ++r) {
    const int token = (task.first_row + r) / task.group, head = (task.first_row + r) % task.group;
    const std::size_t column = std::size_t(task.key_value_head * task.group + head) * task.cache.head_width;
    rows.query[r] = task.queries + task.query_stride * token + column;
    const int position = task.positions[token];
    rows.last[r] = task.causal ? position : task.keys - 1;
    rows.first[r] = task.window && position >= task.window ? position - task.window + 1 : 0;
    rows.lowest = rows.first[r] < rows.lowest ? rows.first[r] : rows.lowest;
    rows.highest = rows.last[r] > rows.highest ? rows.last[r] : rows.highest;
  }
  return rows;
}

// Calls function with the number of rows as a constant, so that all of them share one pass over the keys.
template <class Function>
inline void with_count(int rows, Function&& function) {
  switch (rows) {
    case 1: return function(std::integral_constant<int, 1>{});
    case 2: return function(std::integral_constant<int, 2>{});
    case 3: return function(std::integral_constant<int, 3>{});
    case 4: return function(std::integral_constant<int, 4>{});
    case 5: return function(std::integral_constant<int, 5>{});
    case 6: return function(std::integral_constant<int, 6>{});
    case 7: return function(std::integral_constant<int, 7>{});
    default: return function(std::integral_constant<int, kRowTile>{});
  }
}

// From the sums of one half of a block to its scores.
inline F finish_scores(const AttentionTask& task, F score) {
  if (task.softcap == 0.0f) return score;
  return broadcast(task.softcap) * hyperbolic_tangent(score / broadcast(task.softcap));
}

// --- float16: keys [D][32], values [32][D], exact products in float ---------------------------------------------------
struct HalfTiles {
  const AttentionTask& task;
  const Rows& rows;

  HalfTiles(const AttentionTask& task_, const Rows& rows_, float*) : task(task_), rows(rows_) {}

  static void store(std::uint8_t* key_tile, std::uint8_t* value_tile, int width, int slot, const float* key,
                    const float* value) {
    auto *keys = (std::uint16_t*)key_tile, *values = (std::uint16_t*)value_tile;
    const F limit = broadcast(65504.0f), negative_limit = broadcast(-65504.0f);
    for (int i = 0; i < width; i += 16) {
      std::uint16_t halves[16];
      store_half(halves, maximum(minimum(load(key + i), limit), negative_limit));
      for (int j = 0; j < 16; ++j) keys[std::size_t(i + j) * kBlockTokens + slot] = halves[j];
      store_half(values + std::size_t(slot) * width + i, maximum(minimum(load(value + i), limit), negative_limit));
    }
  }

  // scores[row][slot] of one block.  `next` is the tile that will be read after this one: memory brings it meanwhile,
  // since blocks lie anywhere and no processor guesses where.
  template <int count>
  void score(const std::uint8_t* tile, const std::uint8_t* next, float* scores) const {
    const auto* keys = (const std::uint16_t*)tile;
    F sum[count][2];
    for (int r = 0; r < count; ++r) sum[r][0] = sum[r][1] = zero_lanes();
    for (int d = 0; d < task.cache.head_width; ++d) {
      prefetch(next + std::size_t(d) * kBlockTokens * 2);
      const F low = load_half(keys + std::size_t(d) * kBlockTokens);
      const F high = load_half(keys + std::size_t(d) * kBlockTokens + 16);
OCTAVO_UNROLL
      for (int r = 0; r < count; ++r) {
        const F q = broadcast(rows.query[r][d]);
        sum[r][0] = multiply_add(q, low, sum[r][0]);
        sum[r][1] = multiply_add(q, high, sum[r][1]);
      }
    }
    for (int r = 0; r < count; ++r)
      for (int half = 0; half < 2; ++half)
        octavo::store(scores + std::size_t(r) * kSplitTokens + 16 * half,
                      finish_scores(task, sum[r][half] * broadcast(task.scale)));
  }

  // sums[row][D] = the split's weights times its values; `blocks` says where they lie and what is read after them.
  template <int count, class Blocks>
  void sum_values(const Blocks& blocks, float* weights, float* sums) const {
    for (int i = 0; i < count * task.cache.head_width; i += 16) octavo::store(sums + i, zero_lanes());
    for (int block = 0; block < blocks.count; ++block)
      add_block<count>(blocks.values(block), blocks.after_values(block), weights + block * kBlockTokens, sums);
  }

  // sums[row][D] += weights[row][slot] * V[slot][D] over one block, 32 columns at a time.
  template <int count>
  void add_block(const std::uint8_t* tile, const std::uint8_t* next, const float* weights, float* sums) const {
    const auto* values = (const std::uint16_t*)tile;
    const int width = task.cache.head_width;
    for (int column = 0; column < width; column += 32) {
      const bool both = column + 16 < width;
      F sum[count][2];
      for (int r = 0; r < count; ++r) {
        sum[r][0] = load(sums + std::size_t(r) * width + column);
        sum[r][1] = both ? load(sums + std::size_t(r) * width + column + 16) : zero_lanes();
      }
      for (int slot = 0; slot < kBlockTokens; ++slot) {
        const std::size_t at = std::size_t(slot) * width + column;
        prefetch(next + at * 2);
        const F low = load_half(values + at);
        const F high = both ? load_half(values + at + 16) : zero_lanes();
OCTAVO_UNROLL
        for (int r = 0; r < count; ++r) {
          const F weight = broadcast(weights[std::size_t(r) * kSplitTokens + slot]);
          sum[r][0] = multiply_add(weight, low, sum[r][0]);
          sum[r][1] = multiply_add(weight, high, sum[r][1]);
        }
      }
      for (int r = 0; r < count; ++r) {
        octavo::store(sums + std::size_t(r) * width + column, sum[r][0]);
        if (both) octavo::store(sums + std::size_t(r) * width + column + 16, sum[r][1]);
      }
    }
  }

  static void finish(const float* values, float factor, int width, float* out) {
    for (int i = 0; i < width; i += 16) octavo::store(out + i, load(values + i) * broadcast(factor));
  }
};

// --- int8: one scale for a token and head, integer dot products ---------------------------------------------------------
// Keys of some models have a few channels far larger than the rest, which one scale cannot hold.  A Hadamard
// transform spreads them over the head before the rounding (QuaRot, Ashkboos et al. 2024, section 4); it is
// orthogonal, so the query takes it too and the scores stay what they were, and the values' sum takes it back.
// Without the factor 1 / sqrt(length), that is: `rotate` twice multiplies by rotation_length.
inline int rotation_length(int width) { return width & -width; }  // the largest power of two that divides it

// signs[i][j] of the 16 x 16 Hadamard matrix: -1 to the number of ones that i and j share.
struct HadamardSigns {
  alignas(64) float rows[16][16];
  constexpr HadamardSigns() : rows() {
    for (int i = 0; i < 16; ++i)
      for (int j = 0; j < 16; ++j) {
        const int shared = i & j;
        const int odd = (shared ^ (shared >> 1) ^ (shared >> 2) ^ (shared >> 3)) & 1;
        rows[i][j] = odd ? -1.0f : 1.0f;
      }
  }
};
inline constexpr HadamardSigns kHadamard;

inline void rotate(const float* in, int width, float* out) {
  for (int i = 0; i < width; i += 16) {
    F sum = broadcast(in[i]);
    for (int j = 1; j < 16; ++j) sum = multiply_add(broadcast(in[i + j]), load(kHadamard.rows[j]), sum);
    store(out + i, sum);
  }
  for (int step = 16; step < rotation_length(width); step *= 2)
    for (int i = 0; i < width; i += 16) {
      if (i & step) continue;
      const F low = load(out + i), high = load(out + i + step);
      store(out + i, low + high);
      store(out + i + step, low - high);
    }
}

// A row of floats as scale * (128 high + low), both int8: 15 bits, so that only keys and values are rounded to 8.
constexpr float kLimbRange = 16256.0f;  // 127 * 128

struct Limbs {
  float scale;
  std::int32_t start_high, start_low;  // -128 times their sums: what codes that stand for c - 128 begin with
};

inline Limbs split_limbs(const float* in, int count, std::int8_t* high, std::int8_t* low) {
  F largest = zero_lanes();
  for (int i = 0; i < count; i += 16) largest = maximum(largest, magnitude(load(in + i)));
  const float top = reduce_max(largest);
  const F inverse = broadcast(top > 0.0f ? kLimbRange / top : 0.0f);
  I high_sum = broadcast_int(0), low_sum = broadcast_int(0);
  for (int i = 0; i < count; i += 16) {
    const I whole = to_int(load(in + i) * inverse);
    const I upper = shift_right<7>(whole + broadcast_int(64));
    const I lower = whole - shift_left<7>(upper);  // -64 to 63
    high_sum = high_sum + upper;
    low_sum = low_sum + lower;
    store_bytes(high + i, upper);
    store_bytes(low + i, lower);
  }
  return {top / kLimbRange, -128 * reduce_add(high_sum), -128 * reduce_add(low_sum)};
}

// Scales of 32 keys, keys [2][D/4][16 keys][4]; scales of 32 values, values [D/16][8][16 columns][4 keys]; codes + 128.
constexpr std::size_t kScaleBytes = kBlockTokens * sizeof(float);

struct ByteTiles {
  const AttentionTask& task;
  const Rows& rows;
  std::int8_t* query_high;  // [kRowTile][D]
  std::int8_t* query_low;
  Limbs queries[kRowTile];

  ByteTiles(const AttentionTask& task_, const Rows& rows_, float* scratch) : task(task_), rows(rows_) {
    const int width = task.cache.head_width;
    query_high = (std::int8_t*)(scratch + width);
    query_low = query_high + kRowTile * width;
    for (int r = 0; r < task.rows; ++r) {
      rotate(rows.query[r], width, scratch);
      queries[r] = split_limbs(scratch, width, query_high + r * width, query_low + r * width);
      queries[r].scale *= task.scale / float(rotation_length(width));
    }
  }

  static void store(std::uint8_t* key_tile, std::uint8_t* value_tile, int width, int slot, const float* key,
                    const float* value) {
    alignas(64) std::int8_t codes[kMaxHeadWidth];
    round_row(key, width, slot, key_tile, codes);
    key_tile += kScaleBytes + (slot / 16) * width * 16 + (slot % 16) * 4;
    for (int d = 0; d < width; ++d) key_tile[(d / 4) * kLine + d % 4] = std::uint8_t(codes[d] + 128);
    round_row(value, width, slot, value_tile, codes);
    value_tile += kScaleBytes + (slot / 4) * kLine + slot % 4;
    for (int d = 0; d < width; ++d)
      value_tile[(d / 16) * (kBlockTokens / 4) * kLine + (d % 16) * 4] = std::uint8_t(codes[d] + 128);
  }

  static void round_row(const float* in, int width, int slot, std::uint8_t* tile, std::int8_t* codes) {
    alignas(64) float rotated[kMaxHeadWidth];
    rotate(in, width, rotated);
    F largest = zero_lanes();
    for (int i = 0; i < width; i += 16) largest = maximum(largest, magnitude(load(rotated + i)));
    // Never infinite or NaN: masked slots are multiplied by zero.
    const float top = reduce_max(minimum(largest, broadcast(std::numeric_limits<float>::max())));
    ((float*)tile)[slot] = top / 127.0f;
    const F inverse = broadcast(top > 0.0f ? 127.0f / top : 0.0f);
    for (int i = 0; i < width; i += 16) store_bytes(codes + i, to_int(load(rotated + i) * inverse));
  }

  template <int count>
  void score(const std::uint8_t* tile, const std::uint8_t* next, float* scores) const {
    prefetch(next);
    prefetch(next + kLine);
    const auto* scales = (const float*)tile;
    // Both halves at once while the registers hold their sums: a chain of dot products alone would wait for itself.
    if constexpr (count <= 6) return score_halves<count, 0, 2>(tile, next, scales, scores);
    score_halves<count, 0, 1>(tile, next, scales, scores);
    score_halves<count, 1, 2>(tile, next, scales, scores);
  }

  template <int count, int begin, int end>
  void score_halves(const std::uint8_t* tile, const std::uint8_t* next, const float* key_scales, float* scores) const {
    const int width = task.cache.head_width;
    I high[end - begin][count], low[end - begin][count];
OCTAVO_UNROLL
    for (int half = begin; half < end; ++half)
OCTAVO_UNROLL
      for (int r = 0; r < count; ++r) {
        high[half - begin][r] = start_wide(&queries[r].start_high);
        low[half - begin][r] = start_wide(&queries[r].start_low);
      }
    for (int d = 0; d < width; d += 4) {
OCTAVO_UNROLL
      for (int half = begin; half < end; ++half) {
        const std::size_t at = kScaleBytes + std::size_t(16) * (half * width + d);
        prefetch(next + at);
        const B codes = wide(load_line(tile + at));
OCTAVO_UNROLL
        for (int r = 0; r < count; ++r) {
          high[half - begin][r] = dot_wide(high[half - begin][r], codes, load_four(query_high + r * width + d));
          low[half - begin][r] = dot_wide(low[half - begin][r], codes, load_four(query_low + r * width + d));
        }
      }
    }
OCTAVO_UNROLL
    for (int half = begin; half < end; ++half) {
      const F key_scale = load(key_scales + 16 * half);
OCTAVO_UNROLL
      for (int r = 0; r < count; ++r)
        octavo::store(scores + std::size_t(r) * kSplitTokens + 16 * half,
                      finish_scores(task, to_float(shift_left<7>(high[half - begin][r]) + low[half - begin][r]) *
                                              (broadcast(queries[r].scale) * key_scale)));
    }
  }

  // sums[row][D] = the split's weights times its values.  The integers of a whole split fit 32 bits, so floats are
  // made of them once.
  template <int count, class Blocks>
  void sum_values(const Blocks& blocks, float* weights, float* sums) const {
    const int width = task.cache.head_width, tokens = blocks.count * kBlockTokens;
    alignas(64) std::int8_t high[count][kSplitTokens], low[count][kSplitTokens];
    Limbs limbs[count];
    for (int block = 0; block < blocks.count; ++block) {
      const auto* scales = (const float*)blocks.values(block);
      prefetch(blocks.after_values(block));
      prefetch(blocks.after_values(block) + kLine);
      for (int i = 0; i < kBlockTokens; i += 16) {
        const F scale = load(scales + i);
OCTAVO_UNROLL
        for (int r = 0; r < count; ++r) {
          float* at = weights + std::size_t(r) * kSplitTokens + block * kBlockTokens + i;
          octavo::store(at, load(at) * scale);
        }
      }
    }
OCTAVO_UNROLL
    for (int r = 0; r < count; ++r)
      limbs[r] = split_limbs(weights + std::size_t(r) * kSplitTokens, tokens, high[r], low[r]);
    constexpr int together = count <= 3 ? 4 : count <= 6 ? 2 : 1;  // columns of 16: what the registers hold
    int column = 0;
    for (; column + 16 * together <= width; column += 16 * together)
      sum_columns<count, together>(blocks, column, high, low, limbs, sums);
    for (; column < width; column += 16) sum_columns<count, 1>(blocks, column, high, low, limbs, sums);
  }

  template <int count, int together, class Blocks>
  void sum_columns(const Blocks& blocks, int column, const std::int8_t (*high)[kSplitTokens],
                   const std::int8_t (*low)[kSplitTokens], const Limbs* limbs, float* sums) const {
    constexpr std::size_t each = std::size_t(kBlockTokens) * 16;  // bytes of 16 columns
    I high_sum[together][count], low_sum[together][count];
OCTAVO_UNROLL
    for (int c = 0; c < together; ++c)
OCTAVO_UNROLL
      for (int r = 0; r < count; ++r) {
        high_sum[c][r] = start_wide(&limbs[r].start_high);
        low_sum[c][r] = start_wide(&limbs[r].start_low);
      }
    for (int block = 0; block < blocks.count; ++block) {
      const std::uint8_t* tile = blocks.values(block) + kScaleBytes + each * (column / 16);
      const std::uint8_t* next = blocks.after_values(block) + kScaleBytes + each * (column / 16);
      for (int slot = 0; slot < kBlockTokens; slot += 4) {
        const int token = block * kBlockTokens + slot;
OCTAVO_UNROLL
        for (int c = 0; c < together; ++c) {
          const std::size_t at = each * c + std::size_t(16) * slot;
          prefetch(next + at);
          const B codes = wide(load_line(tile + at));
OCTAVO_UNROLL
          for (int r = 0; r < count; ++r) {
            high_sum[c][r] = dot_wide(high_sum[c][r], codes, load_four(high[r] + token));
            low_sum[c][r] = dot_wide(low_sum[c][r], codes, load_four(low[r] + token));
          }
        }
      }
    }
OCTAVO_UNROLL
    for (int c = 0; c < together; ++c)
OCTAVO_UNROLL
      for (int r = 0; r < count; ++r)
        octavo::store(sums + std::size_t(r) * task.cache.head_width + column + 16 * c,
                      to_float(shift_left<7>(high_sum[c][r]) + low_sum[c][r]) * broadcast(limbs[r].scale));
  }

  static void finish(const float* values, float factor, int width, float* out) {
    rotate(values, width, out);
    const F scale = broadcast(factor / float(rotation_length(width)));
    for (int i = 0; i < width; i += 16) octavo::store(out + i, load(out + i) * scale);
  }
};

}  // namespace
}  // namespace octavo
