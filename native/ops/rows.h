// Operations on one token's row: norms, rotary embedding, activation functions, quantization to int8.
// They read and write nothing but their row, so a token's result cannot depend on its company.
// Counts are multiples of 16.  Included by isa/*.cpp after a vector_*.h.
#pragma once
#include <cmath>

#include "ops/kernels.h"

namespace octavo {
namespace {

// e^x to about one unit in the last place: x = n ln 2 + r, a polynomial in r, and n into the exponent (Cephes' split
// of ln 2).  Below -87 the result is exactly 0, which masked scores rely on.
inline F exponential(F x) {
  const F clamped = minimum(maximum(x, broadcast(-87.3f)), broadcast(88.3f));
  const I n = to_int(clamped * broadcast(1.44269504088896341f));
  const F whole = to_float(n);
  F r = negative_multiply_add(whole, broadcast(0.693359375f), clamped);
  r = negative_multiply_add(whole, broadcast(-2.12194440e-4f), r);
  F p = broadcast(1.9875691500e-4f);
  p = multiply_add(p, r, broadcast(1.3981999507e-3f));
  p = multiply_add(p, r, broadcast(8.3334519073e-3f));
  p = multiply_add(p, r, broadcast(4.1665795894e-2f));
  p = multiply_add(p, r, broadcast(1.6666665459e-1f));
  p = multiply_add(p, r, broadcast(5.0000001201e-1f));
  p = multiply_add(p, r * r, r + broadcast(1.0f));
  const F power = as_float(shift_left<23>(n + broadcast_int(127)));
  return where_less(x, broadcast(-87.3f), zero_lanes(), p * power);
}

inline F hyperbolic_tangent(F x) {  // 1 - 2 / (1 + e^2x)
  const F one = broadcast(1.0f);
  return one - broadcast(2.0f) / (one + exponential(x + x));
}

inline F silu(F x) { return x / (broadcast(1.0f) + exponential(zero_minus(x))); }

inline F gelu_tanh(F x) {  // x/2 (1 + tanh u) = x sigmoid(2u); Hendrycks & Gimpel 2016
  const F u = x * multiply_add(x * x, broadcast(0.044715f * 0.7978845608f), broadcast(0.7978845608f));
  return x / (broadcast(1.0f) + exponential(broadcast(-2.0f) * u));
}

inline F gelu(F x) {  // x/2 (1 + erf(x / sqrt 2)); erf by Abramowitz & Stegun 7.1.26, error below 1.5e-7
  const F one = broadcast(1.0f), z = magnitude(x) * broadcast(0.70710678118f);
  const F t = one / multiply_add(z, broadcast(0.3275911f), one);
  F p = broadcast(1.061405429f);
  p = multiply_add(p, t, broadcast(-1.453152027f));
  p = multiply_add(p, t, broadcast(1.421413741f));
  p = multiply_add(p, t, broadcast(-0.284496736f));
  p = multiply_add(p, t, broadcast(0.254829592f));
  const F tail = p * t * exponential(zero_minus(z * z));  // 1 - erf(z)
  const F half = x * broadcast(0.5f);
  return where_less(x, zero_lanes(), half * tail, half * (one + one - tail));
}

void rms_norm(const float* in, const float* weight, float epsilon, int count, float* out) {
  F squares = zero_lanes();
  for (int i = 0; i < count; i += 16) squares = multiply_add(load(in + i), load(in + i), squares);
  const F factor = broadcast(1.0f / std::sqrt(reduce_add(squares) / float(count) + epsilon));
  for (int i = 0; i < count; i += 16) store(out + i, load(in + i) * factor * load(weight + i));
}

void layer_norm(const RowTask& task) {
  F sum = zero_lanes(), squares = zero_lanes();
  for (int i = 0; i < task.count; i += 16) sum = sum + load(task.in + i);
  const F mean = broadcast(reduce_add(sum) / float(task.count));
  for (int i = 0; i < task.count; i += 16) {
    const F d = load(task.in + i) - mean;
    squares = multiply_add(d, d, squares);
  }
  const F factor = broadcast(1.0f / std::sqrt(reduce_add(squares) / float(task.count) + task.number));
  for (int i = 0; i < task.count; i += 16)
    store(task.out + i,
          multiply_add((load(task.in + i) - mean) * factor, load(task.weight + i), load(task.bias + i)));
}

// weight holds this position's cosines [width / 2], bias its sines.
template <bool interleaved>
void rope(const RowTask& task) {
  const int half = task.width / 2;
  for (float* head = task.out; head < task.out + task.count; head += task.stride) {
    for (int i = 0; i < half; ++i) {
      float& first = head[interleaved ? 2 * i : i];
      float& second = head[interleaved ? 2 * i + 1 : i + half];
      const float x = first, y = second;
      first = x * task.weight[i] - y * task.bias[i];
      second = x * task.bias[i] + y * task.weight[i];
    }
  }
}

template <class Function>
inline void map(const RowTask& task, Function&& function) {
  for (int i = 0; i < task.count; i += 16) store(task.out + i, function(i));
}

void row(const RowTask& task) {
  const float *in = task.in, *in2 = task.in2;
  const F number = broadcast(task.number);
  switch (task.kind) {
    case RowKind::Add: return map(task, [&](int i) { return load(task.out + i) + load(in + i); });
    case RowKind::Scale: return map(task, [&](int i) { return load(task.out + i) * number; });
    case RowKind::RmsNorm: return rms_norm(in, task.weight, task.number, task.count, task.out);
    case RowKind::LayerNorm: return layer_norm(task);
    case RowKind::HeadNorm:
      for (float* head = task.out; head < task.out + task.count; head += task.width)
        rms_norm(head, task.weight, task.number, task.width, head);
      return;
    case RowKind::RopeHalf: return rope<false>(task);
    case RowKind::RopeInterleaved: return rope<true>(task);
    case RowKind::Silu: return map(task, [&](int i) { return silu(load(in + i)); });
    case RowKind::Gelu: return map(task, [&](int i) { return gelu(load(in + i)); });
    case RowKind::GeluTanh: return map(task, [&](int i) { return gelu_tanh(load(in + i)); });
    case RowKind::GatedSilu: return map(task, [&](int i) { return silu(load(in + i)) * load(in2 + i); });
    case RowKind::GatedGelu: return map(task, [&](int i) { return gelu(load(in + i)) * load(in2 + i); });
    case RowKind::GatedGeluTanh: return map(task, [&](int i) { return gelu_tanh(load(in + i)) * load(in2 + i); });
    case RowKind::SoftCap:
      return map(task, [&](int i) { return number * hyperbolic_tangent(load(task.out + i) / number); });
  }
}

// group = in / scale, rounded to int8.  Leaves what rounding left in `rest`.
inline void quantize_group(const F (&in)[2], float largest, QuantizedGroup& group, F (&rest)[2]) {
  const float scale = largest / 127.0f;
  const F inverse = broadcast(largest > 0.0f ? 127.0f / largest : 0.0f);
  float sums[2];
  for (int half = 0; half < 2; ++half) {
    const F codes = to_float(to_int(in[half] * inverse));
    store_bytes(group.codes + 16 * half, to_int(codes));
    sums[half] = reduce_add(codes);  // exact: whole numbers
    rest[half] = negative_multiply_add(codes, broadcast(scale), in[half]);
    group.start_half[half] = std::int32_t(sums[half]) * -128;
  }
  group.scale = scale;
  group.sum = sums[0] + sums[1];
  group.start = group.start_half[0] + group.start_half[1];
}

inline void load_group(const float* in, int first, int count, F (&group)[2]) {
  group[0] = load(in + first);
  group[1] = first + 16 < count ? load(in + first + 16) : zero_lanes();
}

inline float largest_magnitude(const F (&group)[2]) {
  return reduce_max(maximum(magnitude(group[0]), magnitude(group[1])));
}

// A row to int8 with one scale for 32 values (as Q8_0, but the scale stays float).  Rounding's error goes with the
// square of a group's scale; groups above `outlier` times the row's mean square have the rest quantized too, and so
// nearly 16 bits.  The choice looks at nothing but the row.
void quantize(const float* in, int count, int width, int slot, float outlier, std::uint8_t* tile) {
  F group[2], rest[2], nothing[2] = {zero_lanes(), zero_lanes()};
  float squares = 0.0f;
  for (int first = 0; first < count; first += kGroup) {
    load_group(in, first, count, group);
    const float largest = largest_magnitude(group);
    squares += largest * largest;
  }
  const float limit = outlier * squares / float((count + kGroup - 1) / kGroup);
  for (int first = 0; first < count; first += kGroup, tile += record_bytes(width)) {
    QuantizedGroup& whole = ((QuantizedGroup*)tile)[slot];
    QuantizedGroup& second = ((QuantizedGroup*)tile)[width + slot];
    load_group(in, first, count, group);
    const float largest = largest_magnitude(group);
    quantize_group(group, largest, whole, rest);
    whole.has_rest = largest * largest > limit;
    if (whole.has_rest) quantize_group(rest, largest_magnitude(rest), second, nothing);
    else second = {};  // it is multiplied where another token of its tile has one
  }
}

}  // namespace
}  // namespace octavo
