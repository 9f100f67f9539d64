// The vector interface on AVX2 with FMA and F16C, and with AVX-VNNI where a file is compiled for it: two registers
// where AVX-512 has one, the same results bit for bit.
#pragma once
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

// Loops over a tile are written out so that its sums stay in registers.
#define OCTAVO_UNROLL _Pragma("GCC unroll 16")
#define OCTAVO_LINE inline __attribute__((always_inline))  // a line of codes in a register

namespace octavo {
namespace {

struct F { __m256 v[2]; };
struct I { __m256i v[2]; };
struct B { __m256i v[2]; };

#define OCTAVO_BOTH(T, expression) \
  T result;                        \
  for (int h = 0; h < 2; ++h) result.v[h] = expression; \
  return result

inline F load(const float* p) { OCTAVO_BOTH(F, _mm256_loadu_ps(p + 8 * h)); }
inline void store(float* p, F a) {
  for (int h = 0; h < 2; ++h) _mm256_storeu_ps(p + 8 * h, a.v[h]);
}
inline F broadcast(float x) { OCTAVO_BOTH(F, _mm256_set1_ps(x)); }
inline F zero_lanes() { OCTAVO_BOTH(F, _mm256_setzero_ps()); }
inline F operator+(F a, F b) { OCTAVO_BOTH(F, _mm256_add_ps(a.v[h], b.v[h])); }
inline F operator-(F a, F b) { OCTAVO_BOTH(F, _mm256_sub_ps(a.v[h], b.v[h])); }
inline F operator*(F a, F b) { OCTAVO_BOTH(F, _mm256_mul_ps(a.v[h], b.v[h])); }
inline F operator/(F a, F b) { OCTAVO_BOTH(F, _mm256_div_ps(a.v[h], b.v[h])); }
inline F multiply_add(F a, F b, F c) { OCTAVO_BOTH(F, _mm256_fmadd_ps(a.v[h], b.v[h], c.v[h])); }
inline F negative_multiply_add(F a, F b, F c) { OCTAVO_BOTH(F, _mm256_fnmadd_ps(a.v[h], b.v[h], c.v[h])); }
inline F minimum(F a, F b) { OCTAVO_BOTH(F, _mm256_min_ps(a.v[h], b.v[h])); }
inline F maximum(F a, F b) { OCTAVO_BOTH(F, _mm256_max_ps(a.v[h], b.v[h])); }
inline F zero_minus(F a) { return zero_lanes() - a; }
inline F magnitude(F a) { OCTAVO_BOTH(F, _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v[h])); }
inline F where_less(F a, F b, F x, F y) {
  OCTAVO_BOTH(F, _mm256_blendv_ps(y.v[h], x.v[h], _mm256_cmp_ps(a.v[h], b.v[h], _CMP_LT_OQ)));
}

inline F load_half(const std::uint16_t* p) {
  OCTAVO_BOTH(F, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(p + 8 * h))));
}
inline void store_half(std::uint16_t* p, F a) {
  for (int h = 0; h < 2; ++h)
    _mm_storeu_si128((__m128i*)(p + 8 * h),
                     _mm256_cvtps_ph(a.v[h], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline F load_bfloat(const std::uint16_t* p) {
  OCTAVO_BOTH(F, _mm256_castsi256_ps(
                     _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)(p + 8 * h))), 16)));
}
inline F load_unsigned_bytes(const std::uint8_t* p) {
  OCTAVO_BOTH(F, _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)(p + 8 * h)))));
}
inline F load_signed_bytes(const std::int8_t* p) {
  OCTAVO_BOTH(F, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)(p + 8 * h)))));
}

inline F nibbles_to_float(__m128i bytes) {
  const __m128i nibbles = _mm_and_si128(bytes, _mm_set1_epi8(15));
  OCTAVO_BOTH(F, _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(h ? _mm_srli_si128(nibbles, 8) : nibbles)));
}
inline F load_low_nibbles(const std::uint8_t* p) { return nibbles_to_float(_mm_loadu_si128((const __m128i*)p)); }
inline F load_high_nibbles(const std::uint8_t* p) {
  return nibbles_to_float(_mm_srli_epi16(_mm_loadu_si128((const __m128i*)p), 4));
}

inline I load_int(const std::int32_t* p) { OCTAVO_BOTH(I, _mm256_loadu_si256((const __m256i*)(p + 8 * h))); }
inline I broadcast_int(std::int32_t x) { OCTAVO_BOTH(I, _mm256_set1_epi32(x)); }
inline I operator+(I a, I b) { OCTAVO_BOTH(I, _mm256_add_epi32(a.v[h], b.v[h])); }
inline I operator-(I a, I b) { OCTAVO_BOTH(I, _mm256_sub_epi32(a.v[h], b.v[h])); }
inline F to_float(I a) { OCTAVO_BOTH(F, _mm256_cvtepi32_ps(a.v[h])); }
inline I to_int(F a) { OCTAVO_BOTH(I, _mm256_cvtps_epi32(a.v[h])); }
inline void store_bytes(std::int8_t* p, I a) {
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(a.v[0], a.v[1]), 0xd8);
  _mm_storeu_si128((__m128i*)p, _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
}
template <int bits> inline I shift_right(I a) { OCTAVO_BOTH(I, _mm256_srai_epi32(a.v[h], bits)); }
template <int bits> inline I shift_left(I a) { OCTAVO_BOTH(I, _mm256_slli_epi32(a.v[h], bits)); }
inline F as_float(I a) { OCTAVO_BOTH(F, _mm256_castsi256_ps(a.v[h])); }

inline B load_line(const std::uint8_t* p) { OCTAVO_BOTH(B, _mm256_loadu_si256((const __m256i*)(p + 32 * h))); }
inline B operator|(B a, B b) { OCTAVO_BOTH(B, _mm256_or_si256(a.v[h], b.v[h])); }
template <int mask> inline B mask_bytes(B a) {
  OCTAVO_BOTH(B, _mm256_and_si256(a.v[h], _mm256_set1_epi8(char(mask))));
}
template <int from, int to> inline B move_bits(B a) {
  if constexpr (from > to) { OCTAVO_BOTH(B, _mm256_srli_epi16(a.v[h], from - to)); }
  if constexpr (from < to) { OCTAVO_BOTH(B, _mm256_slli_epi16(a.v[h], to - from)); }
  return a;
}
inline B look_up(const std::uint8_t* table, B index) {
  const __m256i both = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i*)table));
  OCTAVO_BOTH(B, _mm256_shuffle_epi8(both, index.v[h]));
}

using Four = __m256i;
inline Four load_four(const std::int8_t* four) { return _mm256_set1_epi32(*(const std::int32_t*)four); }
#ifdef __AVXVNNI__
inline I dot(I acc, B codes, Four a) {
  OCTAVO_BOTH(I, _mm256_dpbusd_avx_epi32(acc.v[h], codes.v[h], a));
}
inline I start_wide(const std::int32_t* start) { return broadcast_int(*start); }
inline B wide(B codes) { return codes; }
inline I dot_wide(I acc, B codes, Four a) { return dot(acc, codes, a); }
// Sums of products need no narrower place on their way.
using Pairs = I;
inline Pairs begin_pairs(I sum) { return sum; }
inline I end_pairs(I, Pairs sum) { return sum; }
#else
// Sums of pairs of products in 16 bits, of a few lines; see lines_of_pairs() in ops/panel_products.h: with codes up
// to 15, eight lines reach 8 * 2 * 15 * 127 at most.
struct Pairs { __m256i v[2]; };
// The compiler would add the products of all lines at the end, and have no registers left for them until then.
inline __m256i now(__m256i sum) {
  asm("" : "+x"(sum));
  return sum;
}
inline Pairs begin_pairs(I) { OCTAVO_BOTH(Pairs, _mm256_setzero_si256()); }
inline I end_pairs(I sum, Pairs a) {
  OCTAVO_BOTH(I, _mm256_add_epi32(sum.v[h], _mm256_madd_epi16(a.v[h], _mm256_set1_epi16(1))));
}
inline Pairs dot(Pairs acc, B codes, Four a) {
  for (int h = 0; h < 2; ++h) acc.v[h] = now(_mm256_add_epi16(acc.v[h], _mm256_maddubs_epi16(codes.v[h], a)));
  return acc;
}
inline Pairs dot_wide(Pairs acc, B codes, Four a) {
  OCTAVO_BOTH(Pairs, _mm256_add_epi16(acc.v[h], _mm256_maddubs_epi16(_mm256_abs_epi8(codes.v[h]),
                                                                     _mm256_sign_epi8(a, codes.v[h]))));
}
// Full bytes: |code - 128| is at most 128, and 2 * 128 * 127 still fits, with the sign moved to the activation.
inline I start_wide(const std::int32_t*) { return broadcast_int(0); }
inline B wide(B codes) { OCTAVO_BOTH(B, _mm256_xor_si256(codes.v[h], _mm256_set1_epi8(char(0x80)))); }
inline I dot_wide(I acc, B codes, Four a) {
  const __m256i ones = _mm256_set1_epi16(1);
  OCTAVO_BOTH(I, _mm256_add_epi32(
                     acc.v[h], _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_abs_epi8(codes.v[h]),
                                                                      _mm256_sign_epi8(a, codes.v[h])),
                                                 ones)));
}
#endif

constexpr int kFloatPanels = 1, kCodePanels = 1;

// To the second-level cache, as in vector_avx512.h.
// Always inlined: the compiler takes a function that only prefetches for one without effect, and drops calls of it.
inline __attribute__((always_inline)) void prefetch(const void* p) { _mm_prefetch((const char*)p, _MM_HINT_T1); }

inline float reduce_add(F a) {
  __m256 x = _mm256_add_ps(a.v[0], a.v[1]);
  __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  y = _mm_add_ps(y, _mm_movehl_ps(y, y));
  return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
}
inline float reduce_max(F a) {
  __m256 x = _mm256_max_ps(a.v[0], a.v[1]);
  __m128 y = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  y = _mm_max_ps(y, _mm_movehl_ps(y, y));
  return _mm_cvtss_f32(_mm_max_ss(y, _mm_movehdup_ps(y)));
}
inline std::int32_t reduce_add(I a) {
  const __m256i x = _mm256_add_epi32(a.v[0], a.v[1]);
  __m128i y = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  y = _mm_add_epi32(y, _mm_unpackhi_epi64(y, y));
  return _mm_cvtsi128_si32(_mm_add_epi32(y, _mm_shuffle_epi32(y, 1)));
}

#undef OCTAVO_BOTH

}  // namespace
}  // namespace octavo
