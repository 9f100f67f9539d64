// The sampler's passes over a whole vocabulary, 64 tokens at a time.  Included by sampling.cpp only.
#pragma once
#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "ops/noise.h"

// The few loops over a whole vocabulary are also compiled for wider registers, and chosen between when the library is
// loaded: the same operations in the same order, so the same bits.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define OCTAVO_WIDE __attribute__((target_clones("arch=x86-64-v3", "default")))
#else
#define OCTAVO_WIDE
#endif

namespace octavo {
namespace {

constexpr int kGroup = 64;  // tokens that are passed over together where their largest logit says so

// The high words of a group of tokens, and the lowest of each eighth lane.
OCTAVO_WIDE void random_words(std::uint64_t seed, std::int32_t position, std::int32_t first, std::uint32_t* words,
                              std::uint32_t* lowest) {
  constexpr int kCounters = kGroup / 4;  // one counter gives the words of four tokens
  Counters<kCounters> counters;
  for (int i = 0; i < kCounters; ++i) {
    counters.word[0][i] = std::uint32_t(first / 4 + i);
    counters.word[1][i] = std::uint32_t(position);
    counters.word[2][i] = counters.word[3][i] = 0;
  }
  volatile int count = kCounters;
  philox(counters.word[0], counters.word[1], counters.word[2], counters.word[3], count, seed);
  for (int i = 0; i < kCounters; ++i)
    for (int lane = 0; lane < 4; ++lane) words[4 * i + lane] = counters.word[lane][i];
  for (int lane = 0; lane < 8; ++lane) lowest[lane] = words[lane];
  for (int i = 8; i < kGroup; i += 8)
    for (int lane = 0; lane < 8; ++lane) lowest[lane] = std::min(lowest[lane], words[i + lane]);
}

// The largest of each group of kGroup logits.  False where one is NaN or infinite.
OCTAVO_WIDE bool find_largest(const float* logits, std::size_t groups, float* largest) {
  std::int32_t bad[8] = {};
  for (std::size_t group = 0; group < groups; ++group, logits += kGroup) {
    float lanes[8];
    std::memcpy(lanes, logits, sizeof(lanes));
    for (int i = 0; i < kGroup; i += 8)
      for (int lane = 0; lane < 8; ++lane) {
        const float value = logits[i + lane];
        lanes[lane] = value > lanes[lane] ? value : lanes[lane];
        // An exponent of all ones carries into the sign.
        bad[lane] |= std::int32_t((std::bit_cast<std::uint32_t>(value) & 0x7fffffffu) + 0x00800000u);
      }
    for (int width = 4; width; width /= 2)
      for (int lane = 0; lane < width; ++lane)
        lanes[lane] = lanes[lane + width] > lanes[lane] ? lanes[lane + width] : lanes[lane];
    largest[group] = lanes[0];
  }
  std::int32_t any = 0;
  for (const std::int32_t lane : bad) any |= lane;
  return any >= 0;
}

// Writes each token's weight; returns their sum and, through `lowest`, the lowest logit less the maximum.
OCTAVO_WIDE double weigh(const float* logits, std::int32_t count, float maximum, float* weights, float* lowest) {
  for (std::int32_t token = 0; token < count; ++token) weights[token] = weight(logits[token] - maximum);
  double sums[8] = {};
  float low[8] = {};
  const std::int32_t whole = count / 8 * 8;
  for (std::int32_t token = 0; token < whole; token += 8)
    for (int lane = 0; lane < 8; ++lane) {
      const float below = logits[token + lane] - maximum;
      sums[lane] += double(weights[token + lane]);
      low[lane] = below < low[lane] ? below : low[lane];
    }
  for (std::int32_t token = whole; token < count; ++token) {
    sums[0] += double(weights[token]);
    low[0] = std::min(low[0], logits[token] - maximum);
  }
  double total = 0.0;
  for (const double sum : sums) total += sum;
  *lowest = *std::min_element(low, low + 8);
  return total;
}

}  // namespace
}  // namespace octavo
