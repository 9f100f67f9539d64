// The vector interface in plain C++: the slow twin of every other ISA, and what runs where none of them does.
#pragma once
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "support/half.h"

#define OCTAVO_UNROLL  // loops stay loops: nothing here is held in wide registers
#define OCTAVO_LINE __attribute__((noinline))  // and lines of codes calls: written out they compile for minutes

namespace octavo {
namespace {

struct F { float v[16]; };
struct I { std::int32_t v[16]; };
struct B { std::uint8_t v[64]; };

#define OCTAVO_LANES(T, expression) \
  T result;                         \
  for (int i = 0; i < 16; ++i) result.v[i] = expression; \
  return result
#define OCTAVO_BYTES(expression) \
  B result;                      \
  for (int i = 0; i < 64; ++i) result.v[i] = std::uint8_t(expression); \
  return result

inline F load(const float* p) { OCTAVO_LANES(F, p[i]); }
inline void store(float* p, F a) { std::memcpy(p, a.v, sizeof a.v); }
inline F broadcast(float x) { OCTAVO_LANES(F, x); }
inline F zero_lanes() { return broadcast(0.0f); }
inline F operator+(F a, F b) { OCTAVO_LANES(F, a.v[i] + b.v[i]); }
inline F operator-(F a, F b) { OCTAVO_LANES(F, a.v[i] - b.v[i]); }
inline F operator*(F a, F b) { OCTAVO_LANES(F, a.v[i] * b.v[i]); }
inline F operator/(F a, F b) { OCTAVO_LANES(F, a.v[i] / b.v[i]); }
inline F multiply_add(F a, F b, F c) { OCTAVO_LANES(F, std::fma(a.v[i], b.v[i], c.v[i])); }
inline F negative_multiply_add(F a, F b, F c) { OCTAVO_LANES(F, std::fma(-a.v[i], b.v[i], c.v[i])); }
inline F minimum(F a, F b) { OCTAVO_LANES(F, a.v[i] < b.v[i] ? a.v[i] : b.v[i]); }
inline F maximum(F a, F b) { OCTAVO_LANES(F, a.v[i] > b.v[i] ? a.v[i] : b.v[i]); }
inline F zero_minus(F a) { return zero_lanes() - a; }
inline F magnitude(F a) { OCTAVO_LANES(F, std::fabs(a.v[i])); }
inline F where_less(F a, F b, F x, F y) { OCTAVO_LANES(F, a.v[i] < b.v[i] ? x.v[i] : y.v[i]); }

inline F load_half(const std::uint16_t* p) { OCTAVO_LANES(F, float_from_half(p[i])); }
inline void store_half(std::uint16_t* p, F a) {
  for (int i = 0; i < 16; ++i) p[i] = half_from_float(a.v[i]);
}
inline F load_bfloat(const std::uint16_t* p) { OCTAVO_LANES(F, float_from_bfloat(p[i])); }
inline F load_unsigned_bytes(const std::uint8_t* p) { OCTAVO_LANES(F, float(p[i])); }
inline F load_signed_bytes(const std::int8_t* p) { OCTAVO_LANES(F, float(p[i])); }

inline F load_low_nibbles(const std::uint8_t* p) { OCTAVO_LANES(F, float(p[i] & 15)); }
inline F load_high_nibbles(const std::uint8_t* p) { OCTAVO_LANES(F, float(p[i] >> 4)); }

inline I load_int(const std::int32_t* p) { OCTAVO_LANES(I, p[i]); }
inline I broadcast_int(std::int32_t x) { OCTAVO_LANES(I, x); }
inline I operator+(I a, I b) { OCTAVO_LANES(I, a.v[i] + b.v[i]); }
inline I operator-(I a, I b) { OCTAVO_LANES(I, a.v[i] - b.v[i]); }
inline F to_float(I a) { OCTAVO_LANES(F, float(a.v[i])); }
// The current rounding mode is to nearest, ties to even.  What no int holds becomes INT_MIN, as on x86.
inline I to_int(F a) {
  OCTAVO_LANES(I, std::fabs(a.v[i]) < 0x1p31f ? std::int32_t(std::nearbyintf(a.v[i])) : INT32_MIN);
}
inline void store_bytes(std::int8_t* p, I a) {
  for (int i = 0; i < 16; ++i) p[i] = std::int8_t(a.v[i]);
}
template <int bits> inline I shift_right(I a) { OCTAVO_LANES(I, a.v[i] >> bits); }
template <int bits> inline I shift_left(I a) { OCTAVO_LANES(I, std::int32_t(std::uint32_t(a.v[i]) << bits)); }
inline F as_float(I a) { OCTAVO_LANES(F, std::bit_cast<float>(a.v[i])); }

inline B load_line(const std::uint8_t* p) { OCTAVO_BYTES(p[i]); }
inline B operator|(B a, B b) { OCTAVO_BYTES(a.v[i] | b.v[i]); }
template <int mask> inline B mask_bytes(B a) { OCTAVO_BYTES(a.v[i] & mask); }
template <int from, int to> inline B move_bits(B a) {
  if constexpr (from > to) { OCTAVO_BYTES(a.v[i] >> (from - to)); }
  if constexpr (from < to) { OCTAVO_BYTES(a.v[i] << (to - from)); }
  return a;
}
inline B look_up(const std::uint8_t* table, B index) { OCTAVO_BYTES(table[index.v[i] & 15]); }

// Four codes of a token, for all lanes alike.
using Four = const std::int8_t*;
inline Four load_four(const std::int8_t* four) { return four; }
// A call: written out in every line of every format, it compiles for minutes.
__attribute__((noinline)) I dot(I acc, const B& codes, Four four) {
  OCTAVO_LANES(I, acc.v[i] + codes.v[4 * i] * four[0] + codes.v[4 * i + 1] * four[1] + codes.v[4 * i + 2] * four[2] +
                      codes.v[4 * i + 3] * four[3]);
}
inline I start_wide(const std::int32_t* start) { return broadcast_int(*start); }
inline B wide(B codes) { return codes; }
inline I dot_wide(I acc, const B& codes, Four four) { return dot(acc, codes, four); }

constexpr int kFloatPanels = 1, kCodePanels = 1;
// Sums of products need no narrower place on their way.
using Pairs = I;
inline Pairs begin_pairs(I sum) { return sum; }
inline I end_pairs(I, Pairs sum) { return sum; }

inline void prefetch(const void*) {}

// The tree of the wide registers: lane i joins i + 8, then i + 4, then i + 2, then i + 1.
inline float reduce_add(F a) {
  for (int half = 8; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) a.v[i] = a.v[i] + a.v[i + half];
  return a.v[0];
}
inline float reduce_max(F a) {
  for (int i = 1; i < 16; ++i) a.v[0] = a.v[0] > a.v[i] ? a.v[0] : a.v[i];
  return a.v[0];
}

inline std::int32_t reduce_add(I a) {
  std::int32_t sum = 0;
  for (std::int32_t lane : a.v) sum += lane;
  return sum;
}

#undef OCTAVO_LANES
#undef OCTAVO_BYTES

}  // namespace
}  // namespace octavo
