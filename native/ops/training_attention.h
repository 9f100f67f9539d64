// Attention for training, forward and backward, in bfloat16 products with float32 sums.  As in FlashAttention (Dao et
// al. 2022) the probabilities are not kept but made again from the rows' normalizers; the matrix of scores exists for a
// few rows at a time.  Included after ops/rows.h and the products of an instruction set.
#pragma once
#include "ops/training_functions.h"
#include <cstring>
#include <limits>

#include "ops/training_layouts.h"

namespace octavo {
namespace {

constexpr int kKeyBlock = 64;  // keys that share a pass over the gradients of queries

constexpr int kKeyStep = std::max(16, 2 * kSumPairs);  // counts of keys and queries are rounded up to it

// --- forward ----------------------------------------------------------------------------------------------------
// Scores of query t for keys from `begin` on -> probabilities times their sum, in bfloat16; the sum and the logarithm.
inline float softmax_row(float* scores, int begin, int end, int first, int last, float scale, Bfloat* out, float& normalizer) {
  const F factor = broadcast(scale), masked = broadcast(-std::numeric_limits<float>::infinity());
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  F most = masked;
  for (int k = begin; k < end; k += 16) {
    F x = load(scores + k) * factor;
    if (k < first || k + 15 > last) {
      const __m512i place = _mm512_add_epi32(lanes, _mm512_set1_epi32(k));
      const __mmask16 seen = _mm512_cmpge_epi32_mask(place, _mm512_set1_epi32(first)) &
                             _mm512_cmple_epi32_mask(place, _mm512_set1_epi32(last));
      x.v = _mm512_mask_blend_ps(seen, masked.v, x.v);
    }
    store(scores + k, x);
    most = maximum(most, x);
  }
  const float top = reduce_max(most);
  F sum = zero_lanes();
  for (int k = begin; k < end; k += 16) {
    const F weight = fast_exponential(load(scores + k) - broadcast(top));
    sum = sum + weight;
    store_bfloat(out + k, weight);
  }
  const float total = reduce_add(sum);
  normalizer = top + std::log(total);
  return total;
}

void training_attention(const TrainingAttention& task, int piece) {
  const int b = piece / task.heads, h = piece % task.heads, T = task.tokens, D = task.width;
  const int padded = round_up(T, kKeyStep), g = h / (task.heads / task.key_heads);
  const std::int32_t* first = task.first + std::size_t(b) * T;
  scratch.begin(std::size_t(padded) * D * 10 + std::size_t(padded) * kRowsAtOnce * 6 + D * kRowsAtOnce * 4 + 1024);
  Bfloat* rows = scratch.take<Bfloat>(std::size_t(padded) * D);
  std::uint32_t* keys = scratch.take<std::uint32_t>(std::size_t(padded) * D / 2);
  std::uint32_t* values = scratch.take<std::uint32_t>(std::size_t(padded) * D / 2);
  float* scores = scratch.take<float>(kRowsAtOnce * std::size_t(padded));
  Bfloat* weights = scratch.take<Bfloat>(kRowsAtOnce * std::size_t(padded));
  float* mixed = scratch.take<float>(kRowsAtOnce * std::size_t(D));
  copy_rows(task.key + std::size_t(b) * T * task.key_stride + std::size_t(g) * D, task.key_stride, T, padded, D, rows);
  pair_columns(rows, padded, D, keys);
  copy_rows(task.value + std::size_t(b) * T * task.value_stride + std::size_t(g) * D, task.value_stride, T, padded, D, rows);
  pair_rows(rows, padded, D, values);
  copy_rows(task.query + std::size_t(b) * T * task.query_stride + std::size_t(h) * D, task.query_stride, T, padded, D, rows);
  [[maybe_unused]] Products products;
  for (int t = 0; t < T; t += kRowsAtOnce) {
    const int count = std::min(kRowsAtOnce, T - t);
    const int begin = first[t] / kKeyStep * kKeyStep, end = std::min(padded, round_up(t + count, kKeyStep));
    product(rows + std::size_t(t) * D, D, keys + begin, padded, D / 2, end - begin, scores + begin, padded, false);
    float sums[kRowsAtOnce];
    for (int r = 0; r < kRowsAtOnce; ++r) {
      float normalizer;
      const int query = std::min(t + r, T - 1);
      sums[r] = softmax_row(scores + std::size_t(r) * padded, begin, end, first[query], query, task.scale,
                            weights + std::size_t(r) * padded, normalizer);
      if (r < count) task.normalizers[(std::size_t(b) * task.heads + h) * T + t + r] = normalizer;
    }
    product(weights + begin, padded, values + std::size_t(begin / 2) * D, D, (end - begin) / 2, D, mixed, D, false);
    for (int r = 0; r < count; ++r) {
      Bfloat* out = task.out + ((std::size_t(b) * T + t + r) * task.heads + h) * D;
      for (int d = 0; d < D; d += 16) store_bfloat(out + d, load(mixed + r * D + d) * broadcast(1.0f / sums[r]));
    }
  }
}

// --- backward ---------------------------------------------------------------------------------------------------
// What the backward pass of one query head reads, in the layouts of its products.
struct QueryHead {
  std::uint32_t *columns, *gradient_columns;  // [D/2][padded]: pairs of values of query, and of the gradient of out
  std::uint32_t *rows, *gradient_rows;        // [padded/2][D]: pairs of queries
  float *normalizers, *deltas;                // [padded]
  float* gradient;                            // [D][padded]
};

// For keys k and k + 1 and 16 queries: probabilities and the gradients of scores (Dao et al. 2022, algorithm 4).
inline void score_gradients(const float* scores, const float* slopes, std::ptrdiff_t stride, int key, int query, int tokens,
                            const std::int32_t* first, const QueryHead& head, float scale, Bfloat* weights,
                            Bfloat* gradients, std::uint32_t* pairs) {
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i place = _mm512_add_epi32(lanes, _mm512_set1_epi32(query));
  const __m512i from = _mm512_loadu_si512(first + query);
  const __mmask16 real = _mm512_cmplt_epi32_mask(place, _mm512_set1_epi32(tokens));
  __m512i both[2];
  for (int r = 0; r < 2; ++r) {
    const __mmask16 seen = real & _mm512_cmpge_epi32_mask(place, _mm512_set1_epi32(key + r)) &
                           _mm512_cmple_epi32_mask(from, _mm512_set1_epi32(key + r));
    F weight = fast_exponential(load(scores + r * stride) * broadcast(scale) - load(head.normalizers + query));
    weight.v = _mm512_maskz_mov_ps(seen, weight.v);
    F gradient = weight * (load(slopes + r * stride) - load(head.deltas + query)) * broadcast(scale);
    gradient.v = _mm512_maskz_mov_ps(seen, gradient.v);
    store_bfloat(weights + r * stride, weight);
    const __m256i rounded = (__m256i)_mm512_cvtneps_pbh(gradient.v);
    _mm256_storeu_si256((__m256i*)(gradients + r * stride), rounded);
    both[r] = _mm512_cvtepu16_epi32(rounded);
  }
  _mm512_storeu_si512(pairs, _mm512_or_si512(both[0], _mm512_slli_epi32(both[1], 16)));
}

inline void prepare_head(const TrainingAttention& task, int b, int h, int padded, Bfloat* rows, const QueryHead& head) {
  const int T = task.tokens, D = task.width;
  const std::size_t start = (std::size_t(b) * T * task.heads + h) * D, stride = std::size_t(task.heads) * D;
  copy_rows(task.query + std::size_t(b) * T * task.query_stride + std::size_t(h) * D, task.query_stride, T, padded, D, rows);
  pair_columns(rows, padded, D, head.columns);
  pair_rows(rows, padded, D, head.rows);
  copy_rows(task.out_gradient + start, std::ptrdiff_t(stride), T, padded, D, rows);
  pair_columns(rows, padded, D, head.gradient_columns);
  pair_rows(rows, padded, D, head.gradient_rows);
  for (int t = 0; t < padded; ++t) {
    F delta = zero_lanes();
    if (t < T)
      for (int d = 0; d < D; d += 16)
        delta = multiply_add(load_bfloat(task.out + start + t * stride + d), load_bfloat(rows + std::size_t(t) * D + d), delta);
    head.deltas[t] = reduce_add(delta);
    head.normalizers[t] = t < T ? task.normalizers[(std::size_t(b) * task.heads + h) * T + t] : 0.0f;
  }
  std::memset(head.gradient, 0, std::size_t(D) * padded * 4);
}

// [D][padded] floats -> rows of bfloat16 [T][D], `stride` apart.
inline void write_transposed(float* in, int padded, int tokens, int width, float* space, Bfloat* out, std::ptrdiff_t stride) {
  for (int t = 0; t < padded; t += 16) {
    for (int d = 0; d < width; d += 16)
      transpose_block((const std::uint32_t*)in + std::size_t(d) * padded + t, padded, (std::uint32_t*)space + d, width);
    for (int r = 0; r < std::min(16, tokens - t); ++r)
      for (int d = 0; d < width; d += 16) store_bfloat(out + (t + r) * stride + d, load(space + r * width + d));
  }
}

inline void write_rows(const float* in, int tokens, int width, Bfloat* out, std::ptrdiff_t stride) {
  for (int t = 0; t < tokens; ++t)
    for (int d = 0; d < width; d += 16) store_bfloat(out + t * stride + d, load(in + std::size_t(t) * width + d));
}

// More than 60 lines: it names all the memory of its products once, in one place.
void training_attention_backward(const TrainingAttention& task, int piece) {
  const int b = piece / task.key_heads, g = piece % task.key_heads, T = task.tokens, D = task.width;
  const int padded = round_up(T, kKeyBlock), group = task.heads / task.key_heads;
  const std::size_t area = std::size_t(padded) * D, strip = std::size_t(padded);
  scratch.begin(area * 34 + strip * (12 + kRowsAtOnce * (8 + 4) + kKeyBlock * 2) + 64 * D + 4096);
  Bfloat *rows = scratch.take<Bfloat>(area), *keys = scratch.take<Bfloat>(area), *values = scratch.take<Bfloat>(area);
  Bfloat* key_columns = scratch.take<Bfloat>(area);  // [D][padded]
  std::uint32_t* paired = scratch.take<std::uint32_t>(area / 2);
  QueryHead head;
  for (std::uint32_t** part : {&head.columns, &head.gradient_columns, &head.rows, &head.gradient_rows})
    *part = scratch.take<std::uint32_t>(area / 2);
  head.gradient = scratch.take<float>(area);
  head.normalizers = scratch.take<float>(strip), head.deltas = scratch.take<float>(strip);
  std::int32_t* first = scratch.take<std::int32_t>(strip);
  float *scores = scratch.take<float>(kRowsAtOnce * strip), *slopes = scratch.take<float>(kRowsAtOnce * strip);
  Bfloat *weights = scratch.take<Bfloat>(kRowsAtOnce * strip), *gradients = scratch.take<Bfloat>(kRowsAtOnce * strip);
  std::uint32_t* pairs = scratch.take<std::uint32_t>(kKeyBlock / 2 * strip);
  float *key_sums = scratch.take<float>(area), *value_sums = scratch.take<float>(area);
  float* space = scratch.take<float>(16 * std::size_t(D));

  copy_rows(task.key + std::size_t(b) * T * task.key_stride + std::size_t(g) * D, task.key_stride, T, padded, D, keys);
  copy_rows(task.value + std::size_t(b) * T * task.value_stride + std::size_t(g) * D, task.value_stride, T, padded, D, values);
  pair_rows(keys, padded, D, paired);
  transpose(paired, D, padded / 2, D, (std::uint32_t*)key_columns, padded / 2);
  std::memset(key_sums, 0, area * 4), std::memset(value_sums, 0, area * 4);
  std::memset(first, 0, strip * 4);
  std::memcpy(first, task.first + std::size_t(b) * T, std::size_t(T) * 4);

  [[maybe_unused]] Products products;
  for (int h = g * group; h < (g + 1) * group; ++h) {
    prepare_head(task, b, h, padded, rows, head);
    int end = 0;  // one after the last query that sees the block
    for (int block = 0; block < T; block += kKeyBlock) {
      while (end < T && first[end] < block + kKeyBlock) ++end;
      const int count = round_up(std::max(end, block + 1), kKeyStep) - block;
      for (int k = block; k < block + kKeyBlock; k += kRowsAtOnce) {
        // Queries before the key see nothing of it: they begin at `skip`, and the pairs before it are zeros.
        const int skip = (k - block) / kKeyStep * kKeyStep, from = block + skip, seen = count - skip;
        for (int r = 0; r < kRowsAtOnce; r += 2) std::memset(pairs + std::size_t((k + r - block) / 2) * strip, 0, std::size_t(skip) * 4);
        if (seen <= 0) continue;
        product(keys + std::size_t(k) * D, D, head.columns + from, padded, D / 2, seen, scores + skip, padded, false);
        product(values + std::size_t(k) * D, D, head.gradient_columns + from, padded, D / 2, seen, slopes + skip, padded, false);
        for (int r = 0; r < kRowsAtOnce; r += 2)
          for (int q = skip; q < count; q += 16)
            score_gradients(scores + r * strip + q, slopes + r * strip + q, padded, k + r, block + q, T, first, head,
                            task.scale, weights + r * strip + q, gradients + r * strip + q,
                            pairs + std::size_t((k + r - block) / 2) * strip + q);
        product(weights + skip, padded, head.gradient_rows + std::size_t(from / 2) * D, D, seen / 2, D,
                value_sums + std::size_t(k) * D, D, true);
        product(gradients + skip, padded, head.rows + std::size_t(from / 2) * D, D, seen / 2, D,
                key_sums + std::size_t(k) * D, D, true);
      }
      for (int d = 0; d < D; d += kRowsAtOnce)
        product(key_columns + std::size_t(d) * padded + block, padded, pairs, padded, kKeyBlock / 2, count,
                head.gradient + std::size_t(d) * padded + block, padded, true);
    }
    write_transposed(head.gradient, padded, T, D, space,
                     task.query_gradient + std::size_t(b) * T * task.query_gradient_stride + std::size_t(h) * D,
                     task.query_gradient_stride);
  }
  write_rows(key_sums, T, D, task.key_gradient + std::size_t(b) * T * task.key_gradient_stride + std::size_t(g) * D,
             task.key_gradient_stride);
  write_rows(value_sums, T, D, task.value_gradient + std::size_t(b) * T * task.value_gradient_stride + std::size_t(g) * D,
             task.value_gradient_stride);
}

}  // namespace
}  // namespace octavo
