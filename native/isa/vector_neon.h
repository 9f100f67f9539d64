// The vector interface on NEON with dot products (ARMv8.2): four registers where AVX-512 has one, the same results bit
// for bit.
#pragma once
#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

// Loops over a tile are written out so that its sums stay in registers.
#define OCTAVO_UNROLL _Pragma("GCC unroll 4")
#define OCTAVO_LINE inline __attribute__((always_inline))  // a line of codes in a register

namespace octavo {
namespace {

struct F { float32x4_t v[4]; };
struct I { int32x4_t v[4]; };
struct B { uint8x16_t v[4]; };

#define OCTAVO_FOUR(T, expression) \
  T result;                        \
  for (int h = 0; h < 4; ++h) result.v[h] = expression; \
  return result

inline F load(const float* p) { OCTAVO_FOUR(F, vld1q_f32(p + 4 * h)); }
inline void store(float* p, F a) {
  for (int h = 0; h < 4; ++h) vst1q_f32(p + 4 * h, a.v[h]);
}
inline F broadcast(float x) { OCTAVO_FOUR(F, vdupq_n_f32(x)); }
inline F zero_lanes() { return broadcast(0.0f); }
inline F operator+(F a, F b) { OCTAVO_FOUR(F, vaddq_f32(a.v[h], b.v[h])); }
inline F operator-(F a, F b) { OCTAVO_FOUR(F, vsubq_f32(a.v[h], b.v[h])); }
inline F operator*(F a, F b) { OCTAVO_FOUR(F, vmulq_f32(a.v[h], b.v[h])); }
inline F operator/(F a, F b) { OCTAVO_FOUR(F, vdivq_f32(a.v[h], b.v[h])); }
inline F multiply_add(F a, F b, F c) { OCTAVO_FOUR(F, vfmaq_f32(c.v[h], a.v[h], b.v[h])); }
inline F negative_multiply_add(F a, F b, F c) { OCTAVO_FOUR(F, vfmsq_f32(c.v[h], a.v[h], b.v[h])); }
inline F zero_minus(F a) { return zero_lanes() - a; }
inline F where_less(F a, F b, F x, F y) { OCTAVO_FOUR(F, vbslq_f32(vcltq_f32(a.v[h], b.v[h]), x.v[h], y.v[h])); }
// Not vminq and vmaxq: of a NaN and a number, x86 takes the second operand.
inline F minimum(F a, F b) { return where_less(a, b, a, b); }
inline F maximum(F a, F b) { return where_less(b, a, a, b); }
inline F magnitude(F a) { OCTAVO_FOUR(F, vabsq_f32(a.v[h])); }

inline F load_half(const std::uint16_t* p) {
  OCTAVO_FOUR(F, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * h))));
}
inline void store_half(std::uint16_t* p, F a) {
  for (int h = 0; h < 4; ++h) vst1_u16(p + 4 * h, vreinterpret_u16_f16(vcvt_f16_f32(a.v[h])));
}
inline F load_bfloat(const std::uint16_t* p) {
  OCTAVO_FOUR(F, vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * h), 16)));
}
inline F bytes_to_float(uint8x16_t bytes) {
  const uint16x8_t low = vmovl_u8(vget_low_u8(bytes)), high = vmovl_u8(vget_high_u8(bytes));
  return {{vcvtq_f32_u32(vmovl_u16(vget_low_u16(low))), vcvtq_f32_u32(vmovl_u16(vget_high_u16(low))),
           vcvtq_f32_u32(vmovl_u16(vget_low_u16(high))), vcvtq_f32_u32(vmovl_u16(vget_high_u16(high)))}};
}
inline F load_unsigned_bytes(const std::uint8_t* p) { return bytes_to_float(vld1q_u8(p)); }
inline F load_signed_bytes(const std::int8_t* p) {
  const int8x16_t bytes = vld1q_s8(p);
  const int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_s8(vget_high_s8(bytes));
  return {{vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(low))),
           vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(high)))}};
}
inline F load_low_nibbles(const std::uint8_t* p) { return bytes_to_float(vandq_u8(vld1q_u8(p), vdupq_n_u8(15))); }
inline F load_high_nibbles(const std::uint8_t* p) { return bytes_to_float(vshrq_n_u8(vld1q_u8(p), 4)); }

inline I load_int(const std::int32_t* p) { OCTAVO_FOUR(I, vld1q_s32(p + 4 * h)); }
inline I broadcast_int(std::int32_t x) { OCTAVO_FOUR(I, vdupq_n_s32(x)); }
inline I operator+(I a, I b) { OCTAVO_FOUR(I, vaddq_s32(a.v[h], b.v[h])); }
inline I operator-(I a, I b) { OCTAVO_FOUR(I, vsubq_s32(a.v[h], b.v[h])); }
inline F to_float(I a) { OCTAVO_FOUR(F, vcvtq_f32_s32(a.v[h])); }
inline I to_int(F a) { OCTAVO_FOUR(I, vcvtnq_s32_f32(a.v[h])); }
inline void store_bytes(std::int8_t* p, I a) {
  const int16x8_t low = vcombine_s16(vmovn_s32(a.v[0]), vmovn_s32(a.v[1]));
  const int16x8_t high = vcombine_s16(vmovn_s32(a.v[2]), vmovn_s32(a.v[3]));
  vst1q_s8(p, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
}
template <int bits> inline I shift_right(I a) { OCTAVO_FOUR(I, vshrq_n_s32(a.v[h], bits)); }
template <int bits> inline I shift_left(I a) { OCTAVO_FOUR(I, vshlq_n_s32(a.v[h], bits)); }
inline F as_float(I a) { OCTAVO_FOUR(F, vreinterpretq_f32_s32(a.v[h])); }

inline B load_line(const std::uint8_t* p) { OCTAVO_FOUR(B, vld1q_u8(p + 16 * h)); }
inline B operator|(B a, B b) { OCTAVO_FOUR(B, vorrq_u8(a.v[h], b.v[h])); }
template <int mask> inline B mask_bytes(B a) { OCTAVO_FOUR(B, vandq_u8(a.v[h], vdupq_n_u8(mask))); }
template <int from, int to> inline B move_bits(B a) {
  if constexpr (from > to) { OCTAVO_FOUR(B, vshrq_n_u8(a.v[h], from - to)); }
  if constexpr (from < to) { OCTAVO_FOUR(B, vshlq_n_u8(a.v[h], to - from)); }
  return a;
}
inline B look_up(const std::uint8_t* table, B index) {
  const uint8x16_t values = vld1q_u8(table);
  OCTAVO_FOUR(B, vqtbl1q_u8(values, index.v[h]));
}

// Four codes of a token, for all lanes alike.
using Four = int8x16_t;
inline Four load_four(const std::int8_t* four) { return vreinterpretq_s8_s32(vdupq_n_s32(*(const std::int32_t*)four)); }
// Codes up to 127 are the same signed and unsigned.
inline I dot(I acc, B codes, Four a) {
  OCTAVO_FOUR(I, vdotq_s32(acc.v[h], vreinterpretq_s8_u8(codes.v[h]), a));
}
// Full bytes c become c - 128, so their sums start at 0.
inline I start_wide(const std::int32_t*) { return broadcast_int(0); }
inline B wide(B codes) { OCTAVO_FOUR(B, veorq_u8(codes.v[h], vdupq_n_u8(0x80))); }
inline I dot_wide(I acc, B codes, Four a) { return dot(acc, codes, a); }

constexpr int kFloatPanels = 1, kCodePanels = 1;
// Sums of products need no narrower place on their way.
using Pairs = I;
inline Pairs begin_pairs(I sum) { return sum; }
inline I end_pairs(I, Pairs sum) { return sum; }

// Always inlined: the compiler takes a function that only prefetches for one without effect, and drops calls of it.
inline __attribute__((always_inline)) void prefetch(const void* p) { __builtin_prefetch(p); }

// The tree of the wide registers: lane i joins i + 8, then i + 4, then i + 2, then i + 1.
inline float reduce_add(F a) {
  const float32x4_t four = vaddq_f32(vaddq_f32(a.v[0], a.v[2]), vaddq_f32(a.v[1], a.v[3]));
  const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
  return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}
inline float reduce_max(F a) {
  return vmaxvq_f32(vmaxq_f32(vmaxq_f32(a.v[0], a.v[1]), vmaxq_f32(a.v[2], a.v[3])));
}

inline std::int32_t reduce_add(I a) {
  return vaddvq_s32(vaddq_s32(vaddq_s32(a.v[0], a.v[1]), vaddq_s32(a.v[2], a.v[3])));
}

#undef OCTAVO_FOUR

}  // namespace
}  // namespace octavo
