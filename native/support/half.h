// IEEE half precision and bfloat16, one value at a time, exact and portable (the vector forms are in isa/).
#pragma once
#include <bit>
#include <cstdint>
#include <cstring>

namespace octavo {

inline __attribute__((always_inline)) float float_from_half(std::uint16_t half) {
  const std::uint32_t sign = std::uint32_t(half & 0x8000u) << 16;
  const std::uint32_t exponent = (half >> 10) & 0x1fu;
  const std::uint32_t mantissa = half & 0x3ffu;
  if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24 is exact
    const float magnitude = float(mantissa) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

// Round to nearest even, as the hardware conversions do; overflow becomes infinity.
inline __attribute__((always_inline)) std::uint16_t half_from_float(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint16_t sign = std::uint16_t((bits >> 16) & 0x8000u);
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return std::uint16_t(sign | 0x7e00u);      // NaN
  if (magnitude >= 0x477ff000u) return std::uint16_t(sign | 0x7c00u);     // rounds to infinity
  if (magnitude < 0x38800000u) {                                          // subnormal half
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;         // 0.5 has ulp 2^-24 / 1: rounds for us
    return std::uint16_t(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3f000000u));
  }
  const std::uint32_t odd = (magnitude >> 13) & 1u;
  return std::uint16_t(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13));
}

inline __attribute__((always_inline)) float float_from_bfloat(std::uint16_t value) { return std::bit_cast<float>(std::uint32_t(value) << 16); }

// Round to nearest even; of finite numbers.
inline __attribute__((always_inline)) std::uint16_t bfloat_from_float(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  return std::uint16_t((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline __attribute__((always_inline)) std::uint16_t load_u16(const std::uint8_t* bytes) {
  std::uint16_t value;
  std::memcpy(&value, bytes, 2);
  return value;
}

}  // namespace octavo
