// Attention over a paged cache, without the matrix of scores (Dao 2023, FlashAttention-2, section 3.1; the split of
// the keys is Flash-Decoding's).  Keys are summed in splits of 256 absolute positions; within a split the maximum is
// known before the weights are summed, and splits are merged in order.  Where a step begins, how many rows share a
// pass and which thread does which split change nothing in a row's chain of operations.
//
// Included by isa/*.cpp after a vector_*.h and ops/rows.h.
#pragma once
#include <limits>
#include <type_traits>

#include "ops/kernels.h"
#include "ops/rows.h"

namespace octavo {
namespace {

constexpr float kMasked = -std::numeric_limits<float>::infinity();

template <CacheType type>
inline F load_cache(const std::uint8_t* tile, std::size_t element) {
  if constexpr (type == CacheType::F16) return load_half((const std::uint16_t*)tile + element);
  return load_signed_bytes((const std::int8_t*)tile + element);
}

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

// scores[row][slot] of one block of 32 keys.
template <CacheType type, int count>
void score_block(const AttentionTask& task, const Rows& rows, const std::uint8_t* keys, float* scores) {
  F sum[count][2];
  for (int r = 0; r < count; ++r) sum[r][0] = sum[r][1] = zero_lanes();
  for (int d = 0; d < task.cache.head_width; ++d) {
    const F low = load_cache<type>(keys, std::size_t(d) * kBlockTokens);
    const F high = load_cache<type>(keys, std::size_t(d) * kBlockTokens + 16);
OCTAVO_UNROLL
    for (int r = 0; r < count; ++r) {
      const F q = broadcast(rows.query[r][d]);
      sum[r][0] = multiply_add(q, low, sum[r][0]);
      sum[r][1] = multiply_add(q, high, sum[r][1]);
    }
  }
  const float* key_scales = (const float*)(keys + 2 * task.cache.tile_bytes());
  for (int r = 0; r < count; ++r) {
    for (int half = 0; half < 2; ++half) {
      F score = sum[r][half] * broadcast(task.scale);
      if constexpr (type == CacheType::I8) score = score * load(key_scales + 16 * half);
      if (task.softcap != 0.0f)
        score = broadcast(task.softcap) * hyperbolic_tangent(score / broadcast(task.softcap));
      store(scores + std::size_t(r) * kSplitTokens + 16 * half, score);
    }
  }
}

// values[row][D] += weights[row][slot] * V[slot][D] over one block, 32 columns at a time.
template <CacheType type, int count>
void add_values(const AttentionTask& task, const std::uint8_t* values, const float* weights, float* sums) {
  const int width = task.cache.head_width;
  for (int column = 0; column < width; column += 32) {
    F sum[count][2];
    for (int r = 0; r < count; ++r)
      for (int c = 0; c < 2; ++c)
        sum[r][c] = column + 16 * c < width ? load(sums + std::size_t(r) * width + column + 16 * c) : zero_lanes();
    for (int slot = 0; slot < kBlockTokens; ++slot) {
      const std::size_t at = std::size_t(slot) * width + column;
      const F low = load_cache<type>(values, at);
      const F high = column + 16 < width ? load_cache<type>(values, at + 16) : zero_lanes();
OCTAVO_UNROLL
      for (int r = 0; r < count; ++r) {
        const F weight = broadcast(weights[std::size_t(r) * kSplitTokens + slot]);
        sum[r][0] = multiply_add(weight, low, sum[r][0]);
        sum[r][1] = multiply_add(weight, high, sum[r][1]);
      }
    }
    for (int r = 0; r < count; ++r)
      for (int c = 0; c < 2; ++c)
        if (column + 16 * c < width) store(sums + std::size_t(r) * width + column + 16 * c, sum[r][c]);
  }
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

// Scores outside a row's [first, last] become -inf; `base` is the position of scores[row][0].
inline void mask_block(const Rows& rows, int count, int base, float* scores) {
  for (int r = 0; r < count; ++r) {
    if (rows.first[r] <= base && rows.last[r] >= base + kBlockTokens - 1) continue;
    float* row = scores + std::size_t(r) * kSplitTokens;
    for (int slot = 0; slot < kBlockTokens; ++slot)
      if (base + slot < rows.first[r] || base + slot > rows.last[r]) row[slot] = kMasked;
  }
}

// Folds a split's (max, sum, values) into a row's.  An empty split leaves the row as it is.
inline void fold(float split_max, float split_sum, const float* split, int width, float& maximum_, float& sum_,
                 float* values) {
  if (split_max == kMasked) return;
  const float top = split_max > maximum_ ? split_max : maximum_;
  alignas(64) float arguments[16] = {maximum_ - top, split_max - top};
  store(arguments, exponential(load(arguments)));
  const F old_factor = broadcast(arguments[0]), new_factor = broadcast(arguments[1]);
  maximum_ = top;
  sum_ = sum_ * arguments[0] + split_sum * arguments[1];
  for (int i = 0; i < width; i += 16)
    store(values + i, multiply_add(load(split + i), new_factor, load(values + i) * old_factor));
}

inline void finish_row(const float* values, float sum, int width, float* out) {
  const F inverse = broadcast(1.0f / sum);
  for (int i = 0; i < width; i += 16) store(out + i, load(values + i) * inverse);
}

// One split for all rows of the task: split_max, split_sum [rows] and sums [rows][D] are written.
template <CacheType type>
void attend_split(const AttentionTask& task, const Rows& rows, int split, float* scores, float* split_max,
                  float* split_sum, float* sums) {
  const int base = split * kSplitTokens;
  const int begin = (rows.lowest > base ? rows.lowest - base : 0) / kBlockTokens;
  const int last = rows.highest - base < kSplitTokens - 1 ? rows.highest - base : kSplitTokens - 1;
  const int end = last < 0 ? 0 : last / kBlockTokens + 1;
  const std::int32_t* table = task.blocks + split * (kSplitTokens / kBlockTokens);
  for (int block = begin; block < end; ++block) {
    const std::uint8_t* keys = task.cache.head(table[block], task.key_value_head);
    float* at = scores + block * kBlockTokens;
    with_count(task.rows, [&](auto count) { score_block<type, decltype(count)::value>(task, rows, keys, at); });
    mask_block(rows, task.rows, base + block * kBlockTokens, at);
  }
  for (int r = 0; r < task.rows; ++r) {
    float* row = scores + std::size_t(r) * kSplitTokens;
    F largest = broadcast(kMasked), total = zero_lanes();
    for (int i = begin * kBlockTokens; i < end * kBlockTokens; i += 16) largest = maximum(largest, load(row + i));
    split_max[r] = reduce_max(largest);
    const F top = broadcast(split_max[r] == kMasked ? 0.0f : split_max[r]);
    for (int i = begin * kBlockTokens; i < end * kBlockTokens; i += 16) {
      const F weight = exponential(load(row + i) - top);
      total = total + weight;
      store(row + i, weight);
    }
    split_sum[r] = reduce_add(total);
  }
  for (int i = 0; i < task.rows * task.cache.head_width; i += 16) store(sums + i, zero_lanes());
  for (int block = begin; block < end; ++block) {
    const std::uint8_t* keys = task.cache.head(table[block], task.key_value_head);
    const std::uint8_t* values = keys + task.cache.tile_bytes();
    float* at = scores + block * kBlockTokens;
    if constexpr (type == CacheType::I8) {
      const float* value_scales = (const float*)(keys + 2 * task.cache.tile_bytes()) + kBlockTokens;
      for (int r = 0; r < task.rows; ++r)
        for (int i = 0; i < kBlockTokens; i += 16) {
          float* weight = at + std::size_t(r) * kSplitTokens + i;
          store(weight, load(weight) * load(value_scales + i));
        }
    }
    with_count(task.rows, [&](auto count) { add_values<type, decltype(count)::value>(task, values, at, sums); });
  }
}

template <CacheType type>
void attend_typed(const AttentionTask& task, float* scratch) {
  const Rows rows = visible_rows(task);
  const int width = task.cache.head_width;
  float* scores = scratch;
  float* sums = scores + kRowTile * kSplitTokens;
  float* values = sums + std::size_t(kRowTile) * width;
  float split_max[kRowTile], split_sum[kRowTile], row_max[kRowTile], row_sum[kRowTile];
  for (int r = 0; r < task.rows; ++r) row_max[r] = kMasked, row_sum[r] = 0.0f;
  for (int i = 0; i < task.rows * width; i += 16) store(values + i, zero_lanes());

  for (int split = task.split_begin; split < task.split_end; ++split) {
    const bool empty = rows.highest < split * kSplitTokens || rows.lowest >= (split + 1) * kSplitTokens;
    if (empty && !task.partials) continue;
    attend_split<type>(task, rows, split, scores, split_max, split_sum, sums);
    for (int r = 0; r < task.rows; ++r) {
      const float* sum = sums + std::size_t(r) * width;
      if (!task.partials) {
        fold(split_max[r], split_sum[r], sum, width, row_max[r], row_sum[r], values + std::size_t(r) * width);
        continue;
      }
      const int token = (task.first_row + r) / task.group, head = (task.first_row + r) % task.group;
      float* partial = task.partials + task.row_stride * (std::size_t(token) * task.heads + head) +
                       std::size_t(split) * (width + 16);
      partial[0] = split_max[r];
      partial[1] = split_sum[r];
      for (int i = 0; i < width; i += 16) store(partial + 16 + i, load(sum + i));
    }
  }
  if (task.partials) return;
  for (int r = 0; r < task.rows; ++r) {
    const std::size_t offset = rows.query[r] - task.queries;
    const std::size_t token = offset / task.query_stride, column = offset % task.query_stride;
    finish_row(values + std::size_t(r) * width, row_sum[r], width, task.out + task.out_stride * token + column);
  }
}

void attend(const AttentionTask& task, float* scratch) {
  if (task.cache.type == CacheType::F16) return attend_typed<CacheType::F16>(task, scratch);
  attend_typed<CacheType::I8>(task, scratch);
}

// The same fold as above, over partials [splits][D + 16] that other tasks have left.
void merge(const float* partials, int splits, int width, float* out) {
  float row_max = kMasked, row_sum = 0.0f;
  for (int i = 0; i < width; i += 16) store(out + i, zero_lanes());
  for (int split = 0; split < splits; ++split, partials += width + 16)
    fold(partials[0], partials[1], partials + 16, width, row_max, row_sum, out);
  finish_row(out, row_sum, width, out);
}

void store_cache(const CacheLayer& layer, std::int32_t block, int slot, int head, const float* key,
                 const float* value) {
  const int width = layer.head_width;
  std::uint8_t* keys = layer.head(block, head);
  std::uint8_t* values = keys + layer.tile_bytes();
  const F limit = broadcast(65504.0f), negative_limit = broadcast(-65504.0f);
  if (layer.type == CacheType::F16) {
    for (int i = 0; i < width; i += 16) {
      std::uint16_t halves[16];
      store_half(halves, maximum(minimum(load(key + i), limit), negative_limit));
      for (int j = 0; j < 16; ++j) ((std::uint16_t*)keys)[std::size_t(i + j) * kBlockTokens + slot] = halves[j];
      store_half((std::uint16_t*)values + std::size_t(slot) * width + i,
                 maximum(minimum(load(value + i), limit), negative_limit));
    }
    return;
  }
  float* scales = (float*)(values + layer.tile_bytes());
  for (int which = 0; which < 2; ++which) {
    const float* in = which == 0 ? key : value;
    F largest = zero_lanes();
    for (int i = 0; i < width; i += 16) largest = maximum(largest, magnitude(load(in + i)));
    const float top = reduce_max(largest);
    scales[which * kBlockTokens + slot] = top / 127.0f;
    const F inverse = broadcast(top > 0.0f ? 127.0f / top : 0.0f);
    for (int i = 0; i < width; i += 16) {
      std::int8_t codes[16];
      store_bytes(codes, to_int(load(in + i) * inverse));
      for (int j = 0; j < 16; ++j) {
        if (which == 0) ((std::int8_t*)keys)[std::size_t(i + j) * kBlockTokens + slot] = codes[j];
        else ((std::int8_t*)values)[std::size_t(slot) * width + i + j] = codes[j];
      }
    }
  }
}

}  // namespace
}  // namespace octavo
