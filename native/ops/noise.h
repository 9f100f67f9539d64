// Exponential, logarithm and keyed noise from IEEE operations alone, for the same bits on every machine.
#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

namespace octavo {

// --- exponential and logarithm --------------------------------------------------------------------------------------

// Of two numbers of one sign, by their bits: a choice between floats becomes a branch, and then no loop is vectors.
inline float nearer_zero(float a, float b) {
  return std::bit_cast<float>(std::min(std::bit_cast<std::uint32_t>(a), std::bit_cast<std::uint32_t>(b)));
}

// e^x for x <= 0, to 2e-7 of the value; below -40 the weight is 0 anyway.  Cody-Waite reduction, Taylor to degree 6.
inline float exponential(float x) {
  x = nearer_zero(x, -40.0f);
  const float n = (x * 1.44269504f + 12582912.0f) - 12582912.0f;
  const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  float p = 1.0f / 720.0f;
  p = p * r + 1.0f / 120.0f;
  p = p * r + 1.0f / 24.0f;
  p = p * r + 1.0f / 6.0f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  return p * std::bit_cast<float>((std::int32_t(n) + 127) << 23);
}

// Probability relative to the likeliest token, rounded to a multiple of 2^-33: sums of up to 2^20 of them are exact in
// a double, so they do not depend on their order.
inline float weight(float below_maximum) {
  constexpr float kRounder = 0x1p-10f;  // from there on a float has no finer bits; below, the sum with it has none
  const float exact = exponential(below_maximum);
  const float small = nearer_zero(exact, kRounder);
  return ((small + kRounder) - kRounder) + (exact - small);
}

// 2 atanh(s) for |s| <= 0.172, to the last bits of a double.
inline double twice_atanh(double s) {
  const double square = s * s;
  double sum = 1.0 / 23.0;
  for (int odd = 21; odd >= 1; odd -= 2) sum = sum * square + 1.0 / odd;
  return 2.0 * s * sum;
}

inline double logarithm(double x) {
  constexpr double kLogTwoHigh = 6.93147180369123816490e-01, kLogTwoLow = 1.90821492927058770002e-10;
  int exponent;
  double mantissa = std::frexp(x, &exponent);  // exact
  if (mantissa < 0.70710678118654752) {
    mantissa = mantissa * 2.0;
    exponent -= 1;
  }
  const double series = twice_atanh((mantissa - 1.0) / (mantissa + 1.0));
  return exponent * kLogTwoHigh + (series + exponent * kLogTwoLow);
}

// --- noise ----------------------------------------------------------------------------------------------------------

// Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), N counters side by side.
template <int N>
struct Counters {
  std::uint32_t word[4][N];
};

// The rounds of one block of counters; `count` is not known to the compiler, which would otherwise unroll the loop and
// then see no vectors in it.
inline void philox(std::uint32_t* __restrict a, std::uint32_t* __restrict b, std::uint32_t* __restrict c,
                   std::uint32_t* __restrict d, int count, std::uint64_t seed) {
  std::uint32_t key0 = std::uint32_t(seed), key1 = std::uint32_t(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    for (int i = 0; i < count; ++i) {
      const std::uint64_t first = std::uint64_t(a[i]) * 0xd2511f53u, second = std::uint64_t(c[i]) * 0xcd9e8d57u;
      a[i] = std::uint32_t(second >> 32) ^ b[i] ^ key0;
      b[i] = std::uint32_t(second);
      c[i] = std::uint32_t(first >> 32) ^ d[i] ^ key1;
      d[i] = std::uint32_t(first);
    }
    key0 += 0x9e3779b9u;
    key1 += 0xbb67ae85u;
  }
}

// 32 of the 64 random bits of a token: part 0 the high ones, part 1 the low ones, which few tokens ever need.
inline std::uint32_t random_word(std::uint64_t seed, std::int32_t position, std::int32_t token, std::uint32_t part) {
  Counters<1> counter{{{std::uint32_t(token) >> 2}, {std::uint32_t(position)}, {part}, {0}}};
  philox(counter.word[0], counter.word[1], counter.word[2], counter.word[3], 1, seed);
  return counter.word[token & 3][0];
}

// Gumbel noise -log(-log(u)) with u = 1 - w, w uniform in (0, 1) of 53 bits.
inline double gumbel_of_word(std::uint64_t seed, std::int32_t position, std::int32_t token, std::uint32_t high) {
  const std::uint64_t bits = (std::uint64_t(high) << 32) | random_word(seed, position, token, 1);
  const double w = (double(bits >> 11) + 0.5) * 0x1p-53;
  const double waiting = w < 0.25 ? twice_atanh(w / (2.0 - w)) : -logarithm(1.0 - w);
  return -logarithm(waiting);
}

}  // namespace octavo
