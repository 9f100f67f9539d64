// Attention over a paged cache, without the matrix of scores (Dao 2023, FlashAttention-2, section 3.1; the split of
// the keys is Flash-Decoding's).  Keys are summed in splits of 256 absolute positions; within a split the maximum is
// known before the weights are summed, and splits are merged in order.  Where a step begins, how many rows share a
// pass and which thread does which split change nothing in a row's chain of operations.
//
// Included by isa/*.cpp after a vector_*.h and ops/rows.h.
#pragma once
#include "ops/attention_tiles.h"

namespace octavo {
namespace {

constexpr float kMasked = -std::numeric_limits<float>::infinity();

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

// The blocks of a split that some row sees, and what memory brings meanwhile: while keys are read the same blocks'
// values, while values are read the keys of the next split, which is likely this thread's next piece.
struct SplitBlocks {
  const AttentionTask& task;
  const std::int32_t* table;  // from the first block on
  int count;
  int left;  // blocks of the sequence from the first on

  SplitBlocks(const AttentionTask& task_, int first, int count_)
      : task(task_), table(task_.blocks + first), count(count_), left((task_.keys - 1) / kBlockTokens + 1 - first) {}

  const std::uint8_t* keys(int block) const { return task.cache.keys(table[block], task.key_value_head); }
  const std::uint8_t* values(int block) const { return task.cache.values(table[block], task.key_value_head); }
  const std::uint8_t* after_keys(int block) const { return values(block); }
  const std::uint8_t* after_values(int block) const { return count + block < left ? keys(count + block) : keys(block); }
};

// One split for all rows of the task: split_max, split_sum [rows] and sums [rows][D] are written.
template <class Tiles>
void attend_split(const Tiles& tiles, const AttentionTask& task, const Rows& rows, int split, float* scores,
                  float* split_max, float* split_sum, float* sums) {
  const int base = split * kSplitTokens;
  const int begin = (rows.lowest > base ? rows.lowest - base : 0) / kBlockTokens;
  const int last = rows.highest - base < kSplitTokens - 1 ? rows.highest - base : kSplitTokens - 1;
  const int end = last < 0 ? 0 : last / kBlockTokens + 1;
  const SplitBlocks blocks(task, base / kBlockTokens + begin, end - begin);
  scores += begin * kBlockTokens;
  for (int block = 0; block < blocks.count; ++block) {
    float* at = scores + block * kBlockTokens;
    with_count(task.rows, [&](auto count) {
      tiles.template score<decltype(count)::value>(blocks.keys(block), blocks.after_keys(block), at);
    });
    mask_block(rows, task.rows, base + (begin + block) * kBlockTokens, at);
  }
  for (int r = 0; r < task.rows; ++r) {
    float* row = scores + std::size_t(r) * kSplitTokens;
    F largest = broadcast(kMasked), total = zero_lanes();
    for (int i = 0; i < blocks.count * kBlockTokens; i += 16) largest = maximum(largest, load(row + i));
    split_max[r] = reduce_max(largest);
    const F top = broadcast(split_max[r] == kMasked ? 0.0f : split_max[r]);
    for (int i = 0; i < blocks.count * kBlockTokens; i += 16) {
      const F weight = exponential(load(row + i) - top);
      total = total + weight;
      store(row + i, weight);
    }
    split_sum[r] = reduce_add(total);
  }
  with_count(task.rows, [&](auto count) { tiles.template sum_values<decltype(count)::value>(blocks, scores, sums); });
}

template <class Tiles>
void attend_over(const AttentionTask& task, float* scratch) {
  const Rows rows = visible_rows(task);
  const int width = task.cache.head_width;
  float* scores = scratch;
  float* sums = scores + kRowTile * kSplitTokens;
  float* values = sums + std::size_t(kRowTile) * width;
  const Tiles tiles(task, rows, values + std::size_t(kRowTile) * width);
  float split_max[kRowTile], split_sum[kRowTile], row_max[kRowTile], row_sum[kRowTile];
  for (int r = 0; r < task.rows; ++r) row_max[r] = kMasked, row_sum[r] = 0.0f;
  for (int i = 0; i < task.rows * width; i += 16) store(values + i, zero_lanes());

  for (int split = task.split_begin; split < task.split_end; ++split) {
    const bool empty = rows.highest < split * kSplitTokens || rows.lowest >= (split + 1) * kSplitTokens;
    if (empty && !task.partials) continue;
    attend_split(tiles, task, rows, split, scores, split_max, split_sum, sums);
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
    Tiles::finish(values + std::size_t(r) * width, 1.0f / row_sum[r], width,
                  task.out + task.out_stride * token + column);
  }
}

void attend(const AttentionTask& task, float* scratch) {
  if (task.cache.type == CacheType::F16) return attend_over<HalfTiles>(task, scratch);
  attend_over<ByteTiles>(task, scratch);
}

// The same fold as above, over partials [splits][D + 16] that other tasks have left.
void merge(CacheType type, const float* partials, int splits, int width, float* out) {
  float row_max = kMasked, row_sum = 0.0f;
  alignas(64) float values[kMaxHeadWidth];
  for (int i = 0; i < width; i += 16) store(values + i, zero_lanes());
  for (int split = 0; split < splits; ++split, partials += width + 16)
    fold(partials[0], partials[1], partials + 16, width, row_max, row_sum, values);
  if (type == CacheType::F16) return HalfTiles::finish(values, 1.0f / row_sum, width, out);
  ByteTiles::finish(values, 1.0f / row_sum, width, out);
}

void store_cache(const CacheLayer& layer, std::int32_t block, int slot, int head, const float* key,
                 const float* value) {
  std::uint8_t *keys = layer.keys(block, head), *values = layer.values(block, head);
  if (layer.type == CacheType::F16) return HalfTiles::store(keys, values, layer.head_width, slot, key, value);
  ByteTiles::store(keys, values, layer.head_width, slot, key, value);
}

}  // namespace
}  // namespace octavo
