// The vector interface on AVX-512 with VNNI.  Every ISA's header defines the same names with the same results, bit
// for bit: F is 16 floats, I is 16 int32, B is a line of 64 bytes, that is 16 lanes of four unsigned codes.
#pragma once
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

// Loops over a tile are written out so that its sums stay in registers.
#define OCTAVO_UNROLL _Pragma("GCC unroll 16")
#define OCTAVO_LINE inline __attribute__((always_inline))  // a line of codes in a register

namespace octavo {
namespace {

struct F { __m512 v; };
struct I { __m512i v; };
struct B { __m512i v; };

inline F load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, F a) { _mm512_storeu_ps(p, a.v); }
inline F broadcast(float x) { return {_mm512_set1_ps(x)}; }
inline F zero_lanes() { return {_mm512_setzero_ps()}; }
inline F operator+(F a, F b) { return {_mm512_add_ps(a.v, b.v)}; }
inline F operator-(F a, F b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline F operator*(F a, F b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline F operator/(F a, F b) { return {_mm512_div_ps(a.v, b.v)}; }
inline F multiply_add(F a, F b, F c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline F negative_multiply_add(F a, F b, F c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }
inline F minimum(F a, F b) { return {_mm512_min_ps(a.v, b.v)}; }
inline F maximum(F a, F b) { return {_mm512_max_ps(a.v, b.v)}; }
inline F zero_minus(F a) { return zero_lanes() - a; }
inline F magnitude(F a) { return {_mm512_abs_ps(a.v)}; }
// Lanes where a < b take x, the others y.
inline F where_less(F a, F b, F x, F y) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), y.v, x.v)};
}

inline F load_half(const std::uint16_t* p) { return {_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p))}; }
inline void store_half(std::uint16_t* p, F a) {
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline F load_bfloat(const std::uint16_t* p) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16))};
}
inline F load_unsigned_bytes(const std::uint8_t* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p)))};
}
inline F load_signed_bytes(const std::int8_t* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)))};
}

inline F nibbles_to_float(__m128i bytes) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_and_si128(bytes, _mm_set1_epi8(15))))};
}
inline F load_low_nibbles(const std::uint8_t* p) { return nibbles_to_float(_mm_loadu_si128((const __m128i*)p)); }
inline F load_high_nibbles(const std::uint8_t* p) {
  return nibbles_to_float(_mm_srli_epi16(_mm_loadu_si128((const __m128i*)p), 4));
}

inline I load_int(const std::int32_t* p) { return {_mm512_loadu_si512(p)}; }
inline I broadcast_int(std::int32_t x) { return {_mm512_set1_epi32(x)}; }
inline I operator+(I a, I b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline I operator-(I a, I b) { return {_mm512_sub_epi32(a.v, b.v)}; }
inline F to_float(I a) { return {_mm512_cvtepi32_ps(a.v)}; }
inline I to_int(F a) { return {_mm512_cvtps_epi32(a.v)}; }  // to nearest, ties to even
inline void store_bytes(std::int8_t* p, I a) { _mm_storeu_si128((__m128i*)p, _mm512_cvtepi32_epi8(a.v)); }
template <int bits> inline I shift_right(I a) { return {_mm512_srai_epi32(a.v, bits)}; }
template <int bits> inline I shift_left(I a) { return {_mm512_slli_epi32(a.v, bits)}; }
inline F as_float(I a) { return {_mm512_castsi512_ps(a.v)}; }

inline B load_line(const std::uint8_t* p) { return {_mm512_loadu_si512(p)}; }
inline B operator|(B a, B b) { return {_mm512_or_si512(a.v, b.v)}; }
template <int mask> inline B mask_bytes(B a) { return {_mm512_and_si512(a.v, _mm512_set1_epi8(char(mask)))}; }
// Moves every byte's bit `from` to bit `to`; what crosses a byte's edge is masked away by the caller.
template <int from, int to> inline B move_bits(B a) {
  if constexpr (from > to) return {_mm512_srli_epi16(a.v, from - to)};
  if constexpr (from < to) return {_mm512_slli_epi16(a.v, to - from)};
  return a;
}
inline B look_up(const std::uint8_t* table, B index) {
  return {_mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i*)table)), index.v)};
}

// Four codes of a token, for all lanes alike.
using Four = I;
inline Four load_four(const std::int8_t* four) { return broadcast_int(*(const std::int32_t*)four); }
// acc[lane] += sum over t of codes[4 lane + t] * four[t]: exact in 32 bits.  Codes up to 127.
inline I dot(I acc, B codes, Four four) { return {_mm512_dpbusd_epi32(acc.v, codes.v, four.v)}; }
// The same for codes c of a full byte that stand for c - 128.  `start` is -128 times the sum of the activations.
inline I start_wide(const std::int32_t* start) { return broadcast_int(*start); }
inline B wide(B codes) { return codes; }
inline I dot_wide(I acc, B codes, Four four) { return dot(acc, codes, four); }

// Panels side by side, whose sums of a tile of tokens fit the registers: a token's inputs are loaded once for all.
constexpr int kFloatPanels = 4, kCodePanels = 2;
// Sums of products need no narrower place on their way.
using Pairs = I;
inline Pairs begin_pairs(I sum) { return sum; }
inline I end_pairs(I, Pairs sum) { return sum; }

#ifdef __AVX512BF16__
#define OCTAVO_BFLOAT_PRODUCTS
// As add_pairs in matmul.h, but for denormals, which are zeros.
inline F add_pairs(F acc, const std::uint8_t* weights, const float* pair) {
  const __m512i two = _mm512_loadu_si512(weights), inputs = _mm512_castps_si512(_mm512_set1_ps(*pair));
  return {_mm512_dpbf16_ps(acc.v, (__m512bh)two, (__m512bh)inputs)};
}
#endif

// To the second-level cache: the first keeps few misses in flight, and a step of several tokens waited for them.
// Always inlined: the compiler takes a function that only prefetches for one without effect, and drops calls of it.
inline __attribute__((always_inline)) void prefetch(const void* p) { _mm_prefetch((const char*)p, _MM_HINT_T1); }

inline float reduce_add(F a) {
  __m256 x = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  y = _mm_add_ps(y, _mm_movehl_ps(y, y));
  return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
}
inline float reduce_max(F a) { return _mm512_reduce_max_ps(a.v); }
inline std::int32_t reduce_add(I a) { return _mm512_reduce_add_epi32(a.v); }

}  // namespace
}  // namespace octavo
