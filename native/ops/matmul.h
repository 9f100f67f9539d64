// out[token][row] = sum over columns of weight[row][column] * activation[token][column] (+ bias[row]).
//
// One algorithm for 1 token and for 512: a tile of up to 4 tokens keeps its sums in registers, and the codes of a group
// are unpacked once for all of them.  Each output has one chain of additions, group after group, whatever the tile: a
// token's results are the same bits alone or in company (row-invariance).
//
// Included by isa/*.cpp after a vector_*.h; everything here has internal linkage.
#pragma once
#include <utility>

#include "ops/kernels.h"
#include "ops/panel_reading.h"

namespace octavo {
namespace {

constexpr std::size_t kPrefetchDistance = 16384;  // bytes; past the end of a matrix a prefetch is ignored

constexpr int zero_shift(int zero) {  // start is -128 * sum; -zero * sum is that shifted right
  int shift = 0;
  while ((zero << shift) < 128) ++shift;
  return shift;
}

// Lines in an order in which those that share bytes follow each other.
template <int first, int last, class Action>
inline __attribute__((always_inline)) void for_lines(Action action) {
  const auto each = [&]<int... i>(std::integer_sequence<int, i...>) __attribute__((always_inline)) {
    if constexpr (last - first == 8) (action.template operator()<(i % 2) * 4 + i / 2>(), ...);
    else (action.template operator()<first + i>(), ...);
  };
  each(std::make_integer_sequence<int, last - first>{});
}

// The codes of a group: in registers, or where these are few still in memory.
template <class AnyPanel>
class GroupCodes {
 public:
  __attribute__((always_inline)) GroupCodes(const AnyPanel& panel, int group) : panel_(panel), group_(group) {
    if constexpr (!kLinesFirst)
      for_lines<0, 8>([&]<int j>() __attribute__((always_inline)) { q_[j] = panel.template line<j>(group); });
  }
  template <int j>
  __attribute__((always_inline)) B line() const {
    if constexpr (kLinesFirst) return panel_.template line<j>(group_);
    else return q_[j];
  }

 private:
  const AnyPanel& panel_;
  int group_;
  B q_[kLinesFirst ? 1 : 8];
};

// How many lines' products of pairs fit the lanes of `Pairs`, by the largest code.
template <Codes kind>
constexpr int lines_of_pairs() {
  if (kind == Codes::U8 || kind == Codes::Table) return 1;
  if (kind == Codes::U6) return 2;
  if (kind == Codes::U5) return 4;
  return 8;
}

// What a sum of products starts from, so that a code counts from its zero: from `start` of a group or a half of it.
template <Codes kind, int zero>
inline I begin_sum(const std::int32_t* start) {
  if constexpr (kind == Codes::U8 || kind == Codes::Table) return start_wide(start);
  return zero ? shift_right<zero_shift(zero ? zero : 128)>(broadcast_int(*start)) : broadcast_int(0);
}

// sum[n] = the integer sum over lines [first, last) of token n, from the start that the zero of the codes asks for.
template <Codes kind, int zero, int first, int last, class AnyCodes, int tokens>
inline __attribute__((always_inline)) void dots(const AnyCodes& codes, const QuantizedGroup* token,
                                                const std::int32_t* start, I (&sum)[tokens]) {
  constexpr bool full_bytes = kind == Codes::U8 || kind == Codes::Table;
  constexpr int together = lines_of_pairs<kind>() < last - first ? lines_of_pairs<kind>() : last - first;
OCTAVO_UNROLL
  for (int n = 0; n < tokens; ++n)
    sum[n] = begin_sum<kind, zero>((const std::int32_t*)((const std::uint8_t*)start + sizeof(QuantizedGroup) * n));
  Pairs pairs[tokens];
  int held = 0;
  for_lines<first, last>([&]<int j>() __attribute__((always_inline)) {
    if (held % together == 0) {
OCTAVO_UNROLL
      for (int n = 0; n < tokens; ++n) pairs[n] = begin_pairs(sum[n]);
    }
    const B line = codes.template line<j>();
OCTAVO_UNROLL
    for (int n = 0; n < tokens; ++n) {
      const std::int8_t* four = token[n].codes + 4 * j;
      pairs[n] = full_bytes ? dot_wide(pairs[n], line, four) : dot(pairs[n], line, four);
    }
    if (++held % together == 0) {
OCTAVO_UNROLL
      for (int n = 0; n < tokens; ++n) sum[n] = end_pairs(sum[n], pairs[n]);
    }
  });
}

constexpr bool in_halves(Scales scales) { return scales == Scales::KD16 || scales == Scales::KDM16; }
constexpr bool has_minimum(Scales scales) { return scales == Scales::DM || scales == Scales::KDM; }

// acc += the values that a group's integer sum of one token stands for; `second` is that of its columns 16 to 31, where
// they have a scale of their own.
template <Codes kind, Scales scales>
inline __attribute__((always_inline)) F add_sums(I first, I second, const GroupScale& s, const QuantizedGroup& token, F acc) {
  F value;
  if constexpr (in_halves(scales)) {
    value = multiply_add(to_float(second), s.d1, to_float(first) * s.d);
    if constexpr (scales == Scales::KDM16) {
      value = multiply_add(s.m, broadcast(float(token.start_half[0]) * (-1.0f / 128)), value);
      value = multiply_add(s.m1, broadcast(float(token.start_half[1]) * (-1.0f / 128)), value);
    }
  } else {
    value = to_float(first);
    if constexpr (kind == Codes::Upper)  // a code is 16 upper + lower, and the lower ones are 7.5 on average
      value = multiply_add(value, broadcast(16.0f), broadcast(7.5f * token.sum));
    value = value * s.d;
    if constexpr (has_minimum(scales)) value = multiply_add(s.m, broadcast(token.sum), value);
  }
  return multiply_add(value, broadcast(token.scale), acc);
}

// acc[n] += the group's weights times the values of token n.
template <Codes kind, Scales scales, int zero, int tokens, class AnyCodes>
inline __attribute__((always_inline)) void add_group(const AnyCodes& codes, const GroupScale& s,
                                                     const QuantizedGroup* token, F* acc) {
  I first[tokens], second[tokens];
  if constexpr (in_halves(scales)) {
    dots<kind, zero, 0, 4>(codes, token, token->start_half, first);
    dots<kind, zero, 4, 8>(codes, token, token->start_half + 1, second);
  } else {
    dots<kind, has_minimum(scales) ? 0 : zero, 0, 8>(codes, token, &token->start, first);
  }
OCTAVO_UNROLL
  for (int n = 0; n < tokens; ++n) acc[n] = add_sums<kind, scales>(first[n], second[n], s, token[n], acc[n]);
}

constexpr int kRestGroups = 64;  // whose rests wait while their weights are near

// acc[n] += the panel times token n.  Of each kRestGroups groups first all the codes are summed, without a branch, and
// then the rests of the few that have one: asking at each group would cost more than the sums.
// `next`: from a group's tokens to the next group's; the tokens' rests lie in the second half between.
template <Codes kind, Scales scales, int zero, int tokens, class AnyPanel>
inline __attribute__((always_inline)) void quantized_tile(const AnyPanel& panel, int groups,
                                                          const QuantizedGroup* activations, int next,
                                                          F (&acc)[tokens]) {
  for (int begin = 0; begin < groups; begin += kRestGroups) {
    const int end = begin + kRestGroups < groups ? begin + kRestGroups : groups;
    std::uint16_t rests[kRestGroups * tokens];  // group within these, and token
    int count = 0;
    for (int group = begin; group < end; ++group) {
      panel.ask_ahead(group);
      const GroupScale scale = panel.scale(group);
      const GroupCodes<AnyPanel> codes(panel, group);
      const QuantizedGroup* here = activations + std::size_t(next) * group;
      // Where registers are few, each line of codes is read once for all tokens; else all its lines stay for each token.
      constexpr int together = kLinesFirst ? tokens : 1;
OCTAVO_UNROLL
      for (int n = 0; n < tokens; n += together)
        add_group<kind, scales, zero, together>(codes, scale, here + n, acc + n);
OCTAVO_UNROLL
      for (int n = 0; n < tokens; ++n) {
        rests[count] = std::uint16_t((group - begin) * kTile + n);
        count += here[n].has_rest;
      }
    }
    if (count == 0) continue;
    alignas(64) float sums[tokens][kPanelRows];
OCTAVO_UNROLL
    for (int n = 0; n < tokens; ++n) store(sums[n], acc[n]);
    for (int i = 0; i < count; ++i) {
      const int group = begin + rests[i] / kTile, n = rests[i] % kTile;
      F sum = load(sums[n]);
      const GroupCodes<AnyPanel> codes(panel, group);
      add_group<kind, scales, zero, 1>(codes, panel.scale(group),
                                       activations + std::size_t(next) * group + next / 2 + n, &sum);
      store(sums[n], sum);
    }
OCTAVO_UNROLL
    for (int n = 0; n < tokens; ++n) acc[n] = load(sums[n]);
  }
}

// acc + the products of two columns, of bfloat16: first the odd one's, then the even one's, each rounded once.
#ifndef OCTAVO_BFLOAT_PRODUCTS
inline F add_pairs(F acc, const std::uint8_t* weights, const float* pair) {
  const I two = load_int((const std::int32_t*)weights), inputs = broadcast_int(*(const std::int32_t*)pair);
  const auto even = [](I a) { return as_float(shift_left<16>(a)); };
  const auto odd = [](I a) { return as_float(shift_left<16>(shift_right<16>(a))); };
  return multiply_add(even(two), even(inputs), multiply_add(odd(two), odd(inputs), acc));
}
#endif

template <Codes kind>
OCTAVO_LINE F load_floats(const std::uint8_t* at) {
  if constexpr (kind == Codes::F16) return load_half((const std::uint16_t*)at);
  if constexpr (kind == Codes::BF16) return load_bfloat((const std::uint16_t*)at);
  return load((const float*)at);
}

inline void store_rows(float* out, F values, int rows) {
  if (rows >= kPanelRows) return store(out, values);
  float padded[kPanelRows];  // the last panel of a matrix whose rows do not fill it
  store(padded, values);
  for (int r = 0; r < rows; ++r) out[r] = padded[r];
}

template <int tokens>
inline __attribute__((always_inline)) void store_tile(const MatmulTask& task, int index, int first, const F (&acc)[tokens]) {
  const int row = index * kPanelRows;
  const F bias = task.bias ? load(task.bias + row) : zero_lanes();
OCTAVO_UNROLL
  for (int n = 0; n < tokens; ++n)
    store_rows(task.out + task.out_stride * (first + n) + row, acc[n] + bias, task.matrix.rows - row);
}

inline const std::uint8_t* tile_of(const MatmulTask& task, int first) {
  return task.activations + task.tile_bytes * (first / task.width);
}

inline const QuantizedGroup* records_of(const MatmulTask& task, int first) {
  return (const QuantizedGroup*)tile_of(task, first) + first % task.width;
}

// Panel `index` times `tokens` tokens of one tile, from token `first` on.
template <Codes kind, Scales scales, int zero, int tokens>
void multiply_tile(const MatmulTask& task, int index, int first) {
  F acc[tokens];
OCTAVO_UNROLL
  for (int n = 0; n < tokens; ++n) acc[n] = zero_lanes();
  const Panel<kind, scales> panel(task.matrix, task.matrix.data + task.matrix.panel_bytes() * index, kPrefetchDistance);
  quantized_tile<kind, scales, zero>(panel, task.matrix.groups(), records_of(task, first), 2 * task.width, acc);
  store_tile(task, index, first, acc);
}

// The same of float weights, whose activations are floats or pairs (kernels.h), 32 bits for each token and column or two;
// of several panels side by side, since the sums of one are too few to be begun in every cycle while others are not yet
// done.
template <Codes kind, int panels, int tokens>
void multiply_float_tile(const MatmulTask& task, int index, int first) {
  F acc[panels][tokens];
OCTAVO_UNROLL
  for (int p = 0; p < panels; ++p) {
OCTAVO_UNROLL
    for (int n = 0; n < tokens; ++n) acc[p][n] = zero_lanes();
  }
  constexpr int columns = kind == Codes::Pairs ? 2 : 1;  // at once
  constexpr std::size_t step = code_bytes(kind) / kGroup * columns;
  const std::size_t next = task.matrix.panel_bytes();
  const std::uint8_t* weights = task.matrix.data + next * index;
  const float* x = (const float*)tile_of(task, first);
  for (int column = 0; column < task.matrix.columns; column += columns, x += task.width, weights += step) {
OCTAVO_UNROLL
    for (int p = 0; p < panels; ++p) {
      const std::uint8_t* here = weights + next * p;
OCTAVO_UNROLL
      for (int n = 0; n < tokens; ++n) {
        if constexpr (kind == Codes::Pairs) acc[p][n] = add_pairs(acc[p][n], here, x + n);
        else acc[p][n] = multiply_add(load_floats<kind>(here), broadcast(x[n]), acc[p][n]);
      }
    }
  }
OCTAVO_UNROLL
  for (int p = 0; p < panels; ++p) store_tile(task, index + p, first, acc[p]);
}

template <Codes kind, int panels>
void multiply_floats(const MatmulTask& task, int index) {
  for (int first = 0; first < task.tokens; first += kTile) {
    switch (task.tokens - first) {
      case 1: multiply_float_tile<kind, panels, 1>(task, index, first); break;
      case 2: multiply_float_tile<kind, panels, 2>(task, index, first); break;
      case 3: multiply_float_tile<kind, panels, 3>(task, index, first); break;
      default: multiply_float_tile<kind, panels, kTile>(task, index, first);
    }
  }
}

template <Codes kind>
void float_sweep(const MatmulTask& task, int begin, int end) {
  int index = begin;
  for (; index + kFloatPanels <= end; index += kFloatPanels) multiply_floats<kind, kFloatPanels>(task, index);
  for (; index < end; ++index) multiply_floats<kind, 1>(task, index);
}

// Panel `index` times the tokens from `first` to `end`.
template <Codes kind, Scales scales, int zero>
void multiply_tokens(const MatmulTask& task, int index, int first, int end) {
  for (; first < end; first += kTile) {
    switch (end - first) {
      case 1: multiply_tile<kind, scales, zero, 1>(task, index, first); break;
      case 2: multiply_tile<kind, scales, zero, 2>(task, index, first); break;
      case 3: multiply_tile<kind, scales, zero, 3>(task, index, first); break;
      default: multiply_tile<kind, scales, zero, kTile>(task, index, first);
    }
  }
}

// Of a long prompt some tokens' activations at a time stay in the second-level cache while all panels pass by.
constexpr std::size_t kStretchBytes = 256 << 10;

inline int stretch_of(const MatmulTask& task) {
  const int tokens = int(kStretchBytes / (sizeof(QuantizedGroup) * task.matrix.groups())) / 16 * 16;
  return tokens < 16 ? 16 : tokens;
}

struct Sweep {
  template <Codes kind, Scales scales, int zero>
  static void run(const MatmulTask& task, int begin, int end) {
    const int stretch = stretch_of(task);
    for (int first = 0; first < task.tokens; first += stretch) {
      const int last = first + stretch < task.tokens ? first + stretch : task.tokens;
      for (int index = begin; index < end; ++index) multiply_tokens<kind, scales, zero>(task, index, first, last);
    }
  }
};

// The sweep over a quantized matrix that its format asks for.
template <class AnySweep>
void quantized_matmul(const MatmulTask& task, int begin, int end) {
  const PanelFormat& f = task.matrix.format;
  switch (f.codes) {
    case Codes::U8: return AnySweep::template run<Codes::U8, Scales::D, 128>(task, begin, end);  // Q8_0
    case Codes::Upper: return AnySweep::template run<Codes::Upper, Scales::D, 8>(task, begin, end);
    case Codes::U6: return AnySweep::template run<Codes::U6, Scales::KD16, 32>(task, begin, end);  // Q6_K
    case Codes::U3: return AnySweep::template run<Codes::U3, Scales::KD16, 4>(task, begin, end);  // Q3_K
    case Codes::U2:
      if (f.scales == Scales::KD) return AnySweep::template run<Codes::U2, Scales::KD, 1>(task, begin, end);  // TQ1_0, TQ2_0
      return AnySweep::template run<Codes::U2, Scales::KDM16, 0>(task, begin, end);  // Q2_K
    case Codes::U4:
      if (f.scales == Scales::D) return AnySweep::template run<Codes::U4, Scales::D, 8>(task, begin, end);  // Q4_0
      if (f.scales == Scales::DM) return AnySweep::template run<Codes::U4, Scales::DM, 0>(task, begin, end);  // Q4_1
      return AnySweep::template run<Codes::U4, Scales::KDM, 0>(task, begin, end);  // Q4_K
    case Codes::U5:
      if (f.scales == Scales::D) return AnySweep::template run<Codes::U5, Scales::D, 16>(task, begin, end);  // Q5_0
      if (f.scales == Scales::DM) return AnySweep::template run<Codes::U5, Scales::DM, 0>(task, begin, end);  // Q5_1
      return AnySweep::template run<Codes::U5, Scales::KDM, 0>(task, begin, end);  // Q5_K
    case Codes::Table:
      if (f.scales == Scales::D) return AnySweep::template run<Codes::Table, Scales::D, 128>(task, begin, end);  // IQ4_NL
      if (f.scales == Scales::Bfloat) return AnySweep::template run<Codes::Table, Scales::Bfloat, 128>(task, begin, end);  // MXFP4
      return AnySweep::template run<Codes::Table, Scales::KD16, 128>(task, begin, end);  // IQ4_XS
    default: return;  // floats
  }
}

void matmul(const MatmulTask& task, int begin, int end) {
  switch (task.matrix.format.codes) {
    case Codes::F32: return float_sweep<Codes::F32>(task, begin, end);
    case Codes::F16: return float_sweep<Codes::F16>(task, begin, end);
    case Codes::BF16: return float_sweep<Codes::BF16>(task, begin, end);
    case Codes::Pairs: return float_sweep<Codes::Pairs>(task, begin, end);
    default: return quantized_matmul<Sweep>(task, begin, end);
  }
}

// One token at a time: of several tokens few ask for the same panel.
void refine(const Refinement& task, int begin, int end) {
  const MatmulTask& coarse = task.coarse;
  const PanelMatrix& matrix = coarse.matrix;
  for (int index = begin; index < end; ++index) {
    const std::uint8_t* data = matrix.data + matrix.panel_bytes() * index;
    const JoinedPanel panel{data, data + matrix.scale_bytes(),
                            task.lower + code_bytes(Codes::Upper) * matrix.groups() * index};
    for (int token = 0; token < coarse.tokens; ++token) {
      float* out = coarse.out + coarse.out_stride * token + index * kPanelRows;
      if (reduce_max(load(out)) < task.floors[token]) continue;
      F acc[1] = {zero_lanes()};
      quantized_tile<Codes::U8, Scales::D, 128>(panel, matrix.groups(), records_of(coarse, token), 2 * coarse.width, acc);
      store(out, acc[0]);
    }
  }
}

float largest(const float* values, int count) {
  F all = load(values);
  for (int i = kPanelRows; i < count; i += kPanelRows) all = maximum(all, load(values + i));
  return reduce_max(all);
}

}  // namespace
}  // namespace octavo
