// Training's operations on rows: activations, norms, and the norm and rotation of heads, forward and backward.  They read
// and write bfloat16 and compute in float32.  Widths are multiples of 16.  Included after ops/rows.h.
#pragma once
#include "ops/training.h"
#include "ops/training_functions.h"
#include "support/half.h"

namespace octavo {
namespace {

// --- activations ------------------------------------------------------------------------------------------------
struct Slope { F value, slope; };  // of an activation function at a point

template <TrainingActivation kind>
inline Slope activation_at(F x) {
  const F one = broadcast(1.0f);
  if constexpr (kind == TrainingActivation::Silu) {
    const F s = reciprocal(one + fast_exponential(zero_minus(x)));
    return {x * s, s * (one + x * (one - s))};
  } else if constexpr (kind == TrainingActivation::GeluTanh) {  // x sigmoid(2u), u = sqrt(2 / pi) (x + 0.044715 x^3)
    const F square = x * x;
    const F u = x * multiply_add(square, broadcast(0.044715f * 0.7978845608f), broadcast(0.7978845608f));
    const F s = reciprocal(one + fast_exponential(broadcast(-2.0f) * u));
    const F rise = multiply_add(square, broadcast(6.0f * 0.044715f * 0.7978845608f), broadcast(2.0f * 0.7978845608f));
    return {x * s, multiply_add(x * s * (one - s), rise, s)};
  } else {  // x P(x), with P as in ops/rows.h, and P + x p(x)
    const F z = magnitude(x) * broadcast(0.70710678118f);
    const F t = reciprocal(multiply_add(z, broadcast(0.3275911f), one));
    F p = broadcast(1.061405429f);
    p = multiply_add(p, t, broadcast(-1.453152027f));
    p = multiply_add(p, t, broadcast(1.421413741f));
    p = multiply_add(p, t, broadcast(-0.284496736f));
    p = multiply_add(p, t, broadcast(0.254829592f));
    const F bell = fast_exponential(zero_minus(z * z));
    const F tail = p * t * bell * broadcast(0.5f);  // P(-|x|)
    const F below = where_less(x, zero_lanes(), tail, one - tail);
    return {x * below, multiply_add(x * bell, broadcast(0.3989422804f), below)};
  }
}

template <TrainingActivation kind>
void activation_forward(const TrainingActivationTask& task, int row) {
  const int C = task.width;
  const Bfloat* in = task.in + std::size_t(row) * C * (task.gated ? 2 : 1);
  Bfloat* out = task.out + std::size_t(row) * C;
  for (int i = 0; i < C; i += 16) {
    const F y = activation_at<kind>(load_bfloat(in + i)).value;
    store_bfloat(out + i, task.gated ? y * load_bfloat(in + C + i) : y);
  }
}

template <TrainingActivation kind>
void activation_gradient(const TrainingActivationTask& task, int row) {
  const int C = task.width, in_width = C * (task.gated ? 2 : 1);
  const Bfloat* in = task.in + std::size_t(row) * in_width;
  const Bfloat* out_gradient = task.out_gradient + std::size_t(row) * C;
  Bfloat* in_gradient = task.in_gradient + std::size_t(row) * in_width;
  for (int i = 0; i < C; i += 16) {
    const Slope at = activation_at<kind>(load_bfloat(in + i));
    F gradient = load_bfloat(out_gradient + i);
    if (task.gated) {
      store_bfloat(in_gradient + C + i, gradient * at.value);
      gradient = gradient * load_bfloat(in + C + i);
    }
    store_bfloat(in_gradient + i, gradient * at.slope);
  }
}

template <bool backward>
void training_activation(const TrainingActivationTask& task, int piece) {
  const auto each = [&](auto function) {
    for (int row = first_row(task.rows, piece); row < first_row(task.rows, piece + 1); ++row) function(task, row);
  };
  switch (task.kind) {
    case TrainingActivation::Silu:
      return each(backward ? activation_gradient<TrainingActivation::Silu> : activation_forward<TrainingActivation::Silu>);
    case TrainingActivation::Gelu:
      return each(backward ? activation_gradient<TrainingActivation::Gelu> : activation_forward<TrainingActivation::Gelu>);
    case TrainingActivation::GeluTanh:
      return each(backward ? activation_gradient<TrainingActivation::GeluTanh>
                           : activation_forward<TrainingActivation::GeluTanh>);
  }
}

// --- norms ------------------------------------------------------------------------------------------------------
struct Moments { float mean, inverse; };  // inverse of the deviation, or of the root mean square where mean is 0

inline Moments moments(const Bfloat* in, int width, float epsilon, bool centered) {
  float mean = 0.0f;
  if (centered) {
    F sum = zero_lanes();
    for (int i = 0; i < width; i += 16) sum = sum + load_bfloat(in + i);
    mean = reduce_add(sum) / float(width);
  }
  F squares = zero_lanes();
  for (int i = 0; i < width; i += 16) {
    const F x = load_bfloat(in + i) - broadcast(mean);
    squares = multiply_add(x, x, squares);
  }
  return {mean, 1.0f / std::sqrt(reduce_add(squares) / float(width) + epsilon)};
}

void training_norm(const TrainingNorm& task, int piece) {
  const int C = task.width;
  for (int row = first_row(task.rows, piece); row < first_row(task.rows, piece + 1); ++row) {
    const Bfloat* in = task.in + std::size_t(row) * C;
    Bfloat* out = task.out + std::size_t(row) * C;
    const Moments at = moments(in, C, task.epsilon, task.centered);
    const F mean = broadcast(at.mean), inverse = broadcast(at.inverse);
    for (int i = 0; i < C; i += 16) {
      const F x = (load_bfloat(in + i) - mean) * inverse;
      store_bfloat(out + i, multiply_add(x, load(task.weight + i), task.bias ? load(task.bias + i) : zero_lanes()));
    }
  }
}

// The gradient of x from that of y = (x - mean) inverse: what does not change mean and length of x falls away.
void training_norm_backward(const TrainingNorm& task, int piece) {
  const int C = task.width;
  float* weight_gradient = task.weight_gradient + std::size_t(piece) * C;
  float* bias_gradient = task.bias_gradient ? task.bias_gradient + std::size_t(piece) * C : nullptr;
  for (int i = 0; i < C; i += 16) {
    store(weight_gradient + i, zero_lanes());
    if (bias_gradient) store(bias_gradient + i, zero_lanes());
  }
  for (int row = first_row(task.rows, piece); row < first_row(task.rows, piece + 1); ++row) {
    const Bfloat *in = task.in + std::size_t(row) * C, *out_gradient = task.out_gradient + std::size_t(row) * C;
    Bfloat* in_gradient = task.in_gradient + std::size_t(row) * C;
    const Moments at = moments(in, C, task.epsilon, task.centered);
    const F mean = broadcast(at.mean), inverse = broadcast(at.inverse);
    F sum = zero_lanes(), along = zero_lanes();
    for (int i = 0; i < C; i += 16) {
      const F x = (load_bfloat(in + i) - mean) * inverse, gradient = load_bfloat(out_gradient + i);
      store(weight_gradient + i, multiply_add(gradient, x, load(weight_gradient + i)));
      if (bias_gradient) store(bias_gradient + i, load(bias_gradient + i) + gradient);
      const F weighted = gradient * load(task.weight + i);
      sum = sum + weighted;
      along = multiply_add(weighted, x, along);
    }
    const F shift = broadcast(task.centered ? reduce_add(sum) / float(C) : 0.0f);
    const F part = broadcast(reduce_add(along) / float(C));
    for (int i = 0; i < C; i += 16) {
      const F x = (load_bfloat(in + i) - mean) * inverse;
      const F weighted = load_bfloat(out_gradient + i) * load(task.weight + i) - shift;
      const F through = negative_multiply_add(x, part, weighted) * inverse;
      store_bfloat(in_gradient + i, task.around ? through + load_bfloat(task.around + std::size_t(row) * C + i) : through);
    }
  }
}

// --- heads ------------------------------------------------------------------------------------------------------
void training_heads(const TrainingHeads& task, int piece) {
  const int D = task.width, half = D / 2;
  for (int row = first_row(task.rows, piece); row < first_row(task.rows, piece + 1); ++row) {
    const std::size_t angle = std::size_t(row % task.angle_rows) * half;
    for (int h = 0; h < task.heads; ++h) {
      const Bfloat* in = task.in + row * task.in_stride + std::size_t(h) * D;
      Bfloat* out = task.out + row * task.out_stride + std::size_t(h) * D;
      const F inverse = broadcast(task.weight ? moments(in, D, task.epsilon, false).inverse : 1.0f);
      for (int i = 0; i < half; i += 16) {
        F x = load_bfloat(in + i) * inverse, y = load_bfloat(in + half + i) * inverse;
        if (task.weight) x = x * load(task.weight + i), y = y * load(task.weight + half + i);
        if (task.cosine) {
          const F cosine = load(task.cosine + angle + i), sine = load(task.sine + angle + i), before = x;
          x = x * cosine - y * sine;
          y = y * cosine + before * sine;
        }
        store_bfloat(out + i, x);
        store_bfloat(out + half + i, y);
      }
    }
  }
}

void training_heads_backward(const TrainingHeads& task, int piece) {
  const int D = task.width, half = D / 2;
  float* weight_gradient = task.weight ? task.weight_gradient + std::size_t(piece) * D : nullptr;
  for (int i = 0; weight_gradient && i < D; i += 16) store(weight_gradient + i, zero_lanes());
  for (int row = first_row(task.rows, piece); row < first_row(task.rows, piece + 1); ++row) {
    const std::size_t angle = std::size_t(row % task.angle_rows) * half;
    for (int h = 0; h < task.heads; ++h) {
      const Bfloat* in = task.in + row * task.in_stride + std::size_t(h) * D;
      const Bfloat* out_gradient = task.out_gradient + row * task.out_gradient_stride + std::size_t(h) * D;
      Bfloat* in_gradient = task.in_gradient + row * task.in_gradient_stride + std::size_t(h) * D;
      const F inverse = broadcast(weight_gradient ? moments(in, D, task.epsilon, false).inverse : 1.0f);
      // First the gradient before the rotation (its inverse turns back), then that before the norm.
      const auto turned_back = [&](int i, F& x, F& y) {
        x = load_bfloat(out_gradient + i), y = load_bfloat(out_gradient + half + i);
        if (!task.cosine) return;
        const F cosine = load(task.cosine + angle + i), sine = load(task.sine + angle + i), before = x;
        x = x * cosine + y * sine;
        y = y * cosine - before * sine;
      };
      F along = zero_lanes(), x, y;
      for (int i = 0; weight_gradient && i < half; i += 16) {
        turned_back(i, x, y);
        const F u = load_bfloat(in + i) * inverse, v = load_bfloat(in + half + i) * inverse;
        store(weight_gradient + i, multiply_add(x, u, load(weight_gradient + i)));
        store(weight_gradient + half + i, multiply_add(y, v, load(weight_gradient + half + i)));
        along = multiply_add(x * load(task.weight + i), u, along);
        along = multiply_add(y * load(task.weight + half + i), v, along);
      }
      const F part = broadcast(reduce_add(along) / float(D));
      for (int i = 0; i < half; i += 16) {
        turned_back(i, x, y);
        if (weight_gradient) {
          const F u = load_bfloat(in + i) * inverse, v = load_bfloat(in + half + i) * inverse;
          x = negative_multiply_add(u, part, x * load(task.weight + i)) * inverse;
          y = negative_multiply_add(v, part, y * load(task.weight + half + i)) * inverse;
        }
        store_bfloat(in_gradient + i, x);
        store_bfloat(in_gradient + half + i, y);
      }
    }
  }
}

// --- loss -------------------------------------------------------------------------------------------------------
// The last lanes of a row whose length is not a multiple of 16.
inline __mmask16 lanes_left(int count) { return count >= 16 ? __mmask16(0xffff) : __mmask16((1u << count) - 1); }

inline F load_bfloat(const Bfloat* p, __mmask16 lanes, float fill) {
  const __m512i wide = _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, p)), 16);
  return {_mm512_mask_blend_ps(lanes, _mm512_set1_ps(fill), _mm512_castsi512_ps(wide))};
}

void training_cross_entropy(const TrainingCrossEntropy& task, int piece) {
  const int V = task.vocabulary;
  for (int row = first_row(task.rows, piece); row < first_row(task.rows, piece + 1); ++row) {
    Bfloat* logits = task.logits + std::size_t(row) * V;
    F most = broadcast(-3.0e38f), all = zero_lanes(), sum = zero_lanes();
    for (int i = 0; i < V; i += 16) {
      const __mmask16 lanes = lanes_left(V - i);
      most = maximum(most, load_bfloat(logits + i, lanes, -3.0e38f));
      if (task.smoothing != 0.0f) all = all + load_bfloat(logits + i, lanes, 0.0f);
    }
    const float top = reduce_max(most);
    for (int i = 0; i < V; i += 16)
      sum = sum + fast_exponential(load_bfloat(logits + i, lanes_left(V - i), -3.0e38f) - broadcast(top));
    const float normalizer = top + std::log(reduce_add(sum));
    Bfloat& wanted = logits[task.targets[row]];
    const float chosen = float_from_bfloat(wanted), mean = reduce_add(all) / float(V);
    task.losses[row] = normalizer - (chosen + task.smoothing * (mean - chosen));
    if (!task.slopes) continue;
    const F shift = broadcast(task.smoothing / float(V)), scale = broadcast(task.scale);
    for (int i = 0; i < V; i += 16) {
      const __mmask16 lanes = lanes_left(V - i);
      const F slope = (fast_exponential(load_bfloat(logits + i, lanes, 0.0f) - broadcast(normalizer)) - shift) * scale;
      _mm256_mask_storeu_epi16(logits + i, lanes, (__m256i)_mm512_cvtneps_pbh(slope.v));
    }
    // Once more in float: from the rounded slope, one minus almost one would lose its digits.
    const F last = broadcast((std::exp(chosen - normalizer) - task.smoothing / float(V) - (1.0f - task.smoothing)) * task.scale);
    _mm256_mask_storeu_epi16(&wanted, 1, (__m256i)_mm512_cvtneps_pbh(last.v));
  }
}

// --- lowering ---------------------------------------------------------------------------------------------------
void training_lowering(const TrainingLowering& task, int piece) {
  const std::size_t begin = task.count * piece / kNormPieces, end = task.count * (piece + 1) / kNormPieces;
  for (std::size_t i = begin; i < end; i += 16) {
    const __mmask16 lanes = lanes_left(int(std::min<std::size_t>(16, end - i)));
    const __m256i rounded = (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(lanes, task.in + i));
    _mm256_mask_storeu_epi16(task.out + i, lanes, rounded);
  }
}

}  // namespace
}  // namespace octavo
