// A tile of tokens times a few panels, group after group, with all sums in registers.
//
// Each output has one chain of additions, whatever the tile: a token's results are the same bits alone or in company
// (row-invariance).
//
// Included by ops/matmul.h after a vector_*.h; everything here has internal linkage.
#pragma once
#include <utility>

#include "ops/panel_reading.h"

namespace octavo {
namespace {

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

// The codes of a group, each line unpacked where it is asked for, or all of them held in registers.
template <class AnyPanel>
struct CodesInMemory {
  const AnyPanel& panel;
  int group;

  template <int j>
  __attribute__((always_inline)) B line() const { return panel.template line<j>(group); }
};

template <class AnyPanel>
class CodesInRegisters {
 public:
  __attribute__((always_inline)) CodesInRegisters(const AnyPanel& panel, int group) {
    for_lines<0, 8>([&]<int j>() __attribute__((always_inline)) { q_[j] = panel.template line<j>(group); });
  }
  template <int j>
  __attribute__((always_inline)) B line() const { return q_[j]; }

 private:
  B q_[8];
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

// sum[p][n] = the integer sum over lines [first, last) of panel p and token n, from the start that the zero of the codes
// asks for.  A line is read once for all tokens, and a token's inputs once for all panels.
template <Codes kind, int zero, int first, int last, class AnyCodes, int panels, int tokens>
inline __attribute__((always_inline)) void dots(const AnyCodes (&codes)[panels], const QuantizedGroup* token,
                                                const std::int32_t* start, I (&sum)[panels][tokens]) {
  constexpr bool full_bytes = kind == Codes::U8 || kind == Codes::Table;
  constexpr int together = lines_of_pairs<kind>() < last - first ? lines_of_pairs<kind>() : last - first;
OCTAVO_UNROLL
  for (int n = 0; n < tokens; ++n) {
    const I begin = begin_sum<kind, zero>((const std::int32_t*)((const std::uint8_t*)start + sizeof(QuantizedGroup) * n));
OCTAVO_UNROLL
    for (int p = 0; p < panels; ++p) sum[p][n] = begin;
  }
  Pairs pairs[panels][tokens];
  int held = 0;
  for_lines<first, last>([&]<int j>() __attribute__((always_inline)) {
    if (held % together == 0) {
OCTAVO_UNROLL
      for (int p = 0; p < panels; ++p) {
OCTAVO_UNROLL
        for (int n = 0; n < tokens; ++n) pairs[p][n] = begin_pairs(sum[p][n]);
      }
    }
    B line[panels];
OCTAVO_UNROLL
    for (int p = 0; p < panels; ++p) line[p] = codes[p].template line<j>();
OCTAVO_UNROLL
    for (int n = 0; n < tokens; ++n) {
      const Four four = load_four(token[n].codes + 4 * j);
OCTAVO_UNROLL
      for (int p = 0; p < panels; ++p)
        pairs[p][n] = full_bytes ? dot_wide(pairs[p][n], line[p], four) : dot(pairs[p][n], line[p], four);
    }
    if (++held % together == 0) {
OCTAVO_UNROLL
      for (int p = 0; p < panels; ++p) {
OCTAVO_UNROLL
        for (int n = 0; n < tokens; ++n) sum[p][n] = end_pairs(sum[p][n], pairs[p][n]);
      }
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

// acc[p][n] += the group's weights of panel p times the values of token n.
template <Codes kind, Scales scales, int zero, class AnyCodes, int panels, int tokens>
inline __attribute__((always_inline)) void add_group(const AnyCodes (&codes)[panels], const GroupScale (&scale)[panels],
                                                     const QuantizedGroup* token, F (&acc)[panels][tokens]) {
  I first[panels][tokens], second[panels][tokens];
  if constexpr (in_halves(scales)) {
    dots<kind, zero, 0, 4>(codes, token, token->start_half, first);
    dots<kind, zero, 4, 8>(codes, token, token->start_half + 1, second);
  } else {
    dots<kind, has_minimum(scales) ? 0 : zero, 0, 8>(codes, token, &token->start, first);
  }
OCTAVO_UNROLL
  for (int p = 0; p < panels; ++p) {
OCTAVO_UNROLL
    for (int n = 0; n < tokens; ++n)
      acc[p][n] = add_sums<kind, scales>(first[p][n], second[p][n], scale[p], token[n], acc[p][n]);
  }
}

// The same of a group of panels in memory.
template <Codes kind, Scales scales, int zero, class AnyPanel, int... p, int tokens>
inline __attribute__((always_inline)) void add_group_of(const AnyPanel* panel, std::integer_sequence<int, p...>, int group,
                                                        const QuantizedGroup* token, F (&acc)[sizeof...(p)][tokens]) {
  const GroupScale scale[] = {panel[p].scale(group)...};
  const CodesInMemory<AnyPanel> codes[] = {{panel[p], group}...};
  add_group<kind, scales, zero>(codes, scale, token, acc);
}

constexpr int kRestGroups = 64;  // whose rests wait while their weights are near

// acc[p][n] += panel p times token n.  Of each kRestGroups groups first all the codes are summed, without a branch, and
// then the rests of the few that have one, which mostly are the same for all tokens: asking at each group would cost more
// than the sums.  What a token without a rest gets there is 0.
// `next`: from a group's tokens to the next group's; the tokens' rests lie in the second half between.
template <Codes kind, Scales scales, int zero, class AnyPanel, class AnyLookahead, int panels, int tokens>
inline __attribute__((always_inline)) void quantized_tile(const AnyPanel (&panel)[panels], int groups,
                                                          const QuantizedGroup* activations, int next,
                                                          AnyLookahead ahead, F (&acc)[panels][tokens]) {
  constexpr auto each = std::make_integer_sequence<int, panels>{};
  for (int begin = 0; begin < groups; begin += kRestGroups) {
    const int end = begin + kRestGroups < groups ? begin + kRestGroups : groups;
    int rests[kRestGroups], count = 0;
    for (int group = begin; group < end; ++group) {
      ahead.ask(group);
      const QuantizedGroup* here = activations + std::size_t(next) * group;
      add_group_of<kind, scales, zero>(panel, each, group, here, acc);
      int has_rest = 0;
OCTAVO_UNROLL
      for (int n = 0; n < tokens; ++n) has_rest |= here[n].has_rest;
      rests[count] = group;
      count += has_rest;
    }
    for (int i = 0; i < count; ++i) {
      const QuantizedGroup* here = activations + std::size_t(next) * rests[i] + next / 2;
      add_group_of<kind, scales, zero>(panel, each, rests[i], here, acc);
    }
  }
}

}  // namespace
}  // namespace octavo
