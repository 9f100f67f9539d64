// The one order of a row's tokens that all filters cut: larger logits first, lower ids first among equals.
#pragma once
#include <bit>
#include <cstdint>

namespace octavo {

// A signed integer that compares as the float does; -0 counts as 0.
inline std::int32_t key_of(float value) {
  const std::int32_t bits = std::bit_cast<std::int32_t>(value + 0.0f);
  return bits ^ ((bits >> 31) & 0x7fffffff);
}

inline float value_of(std::int32_t key) { return std::bit_cast<float>(key ^ ((key >> 31) & 0x7fffffff)); }

inline constexpr std::int32_t kMinusInfinityKey = std::int32_t(0xff800000u) ^ 0x7fffffff;

// A token's place in that order as one number: larger is earlier.
using Ranked = std::uint64_t;

inline Ranked rank(std::int32_t key, std::int32_t token) {
  return (std::uint64_t(std::uint32_t(key) ^ 0x80000000u) << 32) | (0xffffffffu - std::uint32_t(token));
}
inline std::int32_t key_of(Ranked ranked) { return std::int32_t(std::uint32_t(ranked >> 32) ^ 0x80000000u); }
inline std::int32_t token_of(Ranked ranked) { return std::int32_t(0xffffffffu - std::uint32_t(ranked)); }

// All filters keep a beginning of one order, so what survives them is the tokens ranked no lower than a cutoff.
inline constexpr Ranked kEverything = Ranked(std::uint32_t(kMinusInfinityKey + 1) ^ 0x80000000u) << 32;

}  // namespace octavo
