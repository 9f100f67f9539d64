// From logits to tokens: adjust, filter, draw.  Portable C++ without intrinsics; the slow twin is decoding/sampling.py.
//
// The order is llama.cpp's: logit bias, penalties, [token mask,] top_k, top_p, min_p, temperature, draw.
// The draw is the Gumbel-max trick: the survivor with the largest logit / temperature + noise, where the noise is a
// pure function of (seed, position, token id).  So a token depends on nothing else in the batch, and two models that
// share a seed draw the same token as often as their distributions allow (drafts and their verification).
//
// Same bits everywhere: only IEEE additions, multiplications, divisions and roundings, in a fixed order, with our own
// exponential and logarithm.  Compile with -ffp-contract=off (a fused multiply-add would round differently).
// Shapes: R rows, V vocabulary, M words of a token mask = ceil(V / 32).
#pragma once
#include <cstddef>
#include <cstdint>

namespace octavo {

constexpr std::int32_t kMaxVocabulary = 1 << 20;  // sums of probability weights are exact up to here

// One row's options, laid out as PARAMETERS in decoding/sampling.py.
struct SamplingParameters {
  double temperature;         // 0: the largest logit, the lowest id among equals
  double top_p;               // 1: off
  double min_p;               // 0: off
  double repetition_penalty;  // 1: off
  double presence_penalty;
  double frequency_penalty;
  std::uint64_t seed;
  std::int64_t top_k;  // 0: off
};
static_assert(sizeof(SamplingParameters) == 64);

struct SamplingInput {
  const float* logits;  // [R, V], finite
  std::int32_t rows, vocabulary;
  const SamplingParameters* parameters;  // [R]
  const std::int32_t* positions;         // [R] place in its sequence of the token that is drawn
  const std::int32_t* history;           // the tokens that penalties count: of row r, offsets[r] to offsets[r + 1]
  const std::int64_t* history_offsets;   // [R + 1]
  const std::int32_t* bias_tokens;       // likewise; -inf forbids a token
  const float* bias_values;
  const std::int64_t* bias_offsets;  // [R + 1]
  const std::uint32_t* mask;         // [R, M], bit t % 32 of word t / 32 allows token t; null allows all
};

constexpr std::int32_t kNotFinite = -1;       // written for a row that has a NaN or an infinity
constexpr std::int32_t kNothingAllowed = -2;  // written for a row whose mask and biases forbid every token

// Writes a token, or one of the two codes above, for each row; returns how many rows have a code.
std::int32_t sample(const SamplingInput& input, std::int32_t* tokens);

// Writes the law that `sample` draws each row from, [R, V]; zeros for a row that fails.  Returns how many fail.
std::int32_t distribution(const SamplingInput& input, double* probabilities);

// The noise of `count` tokens, as the draw uses it.
void gumbel(std::uint64_t seed, std::int32_t position, const std::int32_t* tokens, std::size_t count, double* noise);

// Natural log-probabilities under the softmax of one row of logits: of `chosen`, and of the `count` likeliest tokens in
// falling order, lower ids first among equals.  False where the row has a NaN or an infinity.
bool log_probabilities(const float* logits, std::int32_t vocabulary, std::int32_t chosen, std::int32_t count,
                       float* chosen_value, std::int32_t* tokens, float* values);

}  // namespace octavo
