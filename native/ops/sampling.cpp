// From logits to tokens; see sampling.h.
#include "ops/sampling.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "ops/noise.h"
#include "ops/ranking.h"
#include "ops/vocabulary_passes.h"

namespace octavo {
namespace {

// --- one row --------------------------------------------------------------------------------------------------------

// Survivors compete group after group; a token that cannot win any more is recognised without a logarithm.
class Draw {
 public:
  Draw(const SamplingParameters& parameters, std::int32_t position, float maximum, Ranked cutoff)
      : seed_(parameters.seed), position_(position), temperature_(parameters.temperature), maximum_(maximum),
        cutoff_(cutoff) {}

  void offer(const float* logits, std::int32_t first, int count, float largest) {
    const std::int64_t limit = highest_word(largest);
    if (limit < 0) return;
    std::uint32_t words[kGroup], lowest[8];
    random_words(seed_, position_, first, words, lowest);
    if (*std::min_element(lowest, lowest + 8) > limit) return;
    for (int i = 0; i < count; ++i)
      if (words[i] <= limit && rank(key_of(logits[i]), first + i) >= cutoff_) offer(logits[i], first + i, words[i]);
  }

  std::int32_t token() const { return token_; }

 private:
  double scaled(float logit) const { return (double(logit) - double(maximum_)) / temperature_; }

  // The largest random word that can win for a logit up to this one, -1 if none can: -log(1 - w) >= w, so the noise is
  // at most -log(w), and w is at least 2^-54.
  std::int64_t highest_word(float logit) const {
    const double missing = best_ - scaled(logit);
    if (!(missing > 0.0)) return 0xffffffff;
    if (missing > 39.0) return -1;
    return std::min<std::int64_t>(std::int64_t(double(exponential(float(-missing))) * 0x1.0001p32) + 1, 0xffffffff);
  }

  void offer(float logit, std::int32_t token, std::uint32_t high) {
    const double score = scaled(logit) + gumbel_of_word(seed_, position_, token, high);
    if (score > best_ || (score == best_ && token < token_)) best_ = score, token_ = token;
  }

  std::uint64_t seed_;
  std::int32_t position_;
  double temperature_;
  float maximum_;
  Ranked cutoff_;
  double best_ = -std::numeric_limits<double>::infinity();
  std::int32_t token_ = std::numeric_limits<std::int32_t>::max();
};

class Row {
 public:
  // Takes the logits in and finds the largest of each group.  False where one is NaN or infinite.
  bool read(const float* logits, std::int32_t vocabulary) {
    logits_ = logits;
    vocabulary_ = vocabulary;
    largest_.resize((std::size_t(vocabulary) + kGroup - 1) / kGroup);
    const std::size_t whole = std::size_t(vocabulary) / kGroup;
    bool good = find_largest(logits, whole, largest_.data());
    if (whole < largest_.size()) {
      largest_[whole] = -std::numeric_limits<float>::infinity();
      for (std::int32_t token = std::int32_t(whole * kGroup); token < vocabulary; ++token) {
        good &= std::abs(logits[token]) <= FLT_MAX;
        largest_[whole] = std::max(largest_[whole], logits[token]);
      }
    }
    best_group_ = std::size_t(std::max_element(largest_.begin(), largest_.end()) - largest_.begin());
    return good;
  }

  float maximum() const { return largest_[best_group_]; }

  std::int32_t greedy() const {
    std::int32_t token = std::int32_t(best_group_ * kGroup);
    while (logits_[token] != maximum()) ++token;
    return token;
  }

  std::int32_t draw(const SamplingParameters& parameters, std::int32_t position) {
    const Ranked cutoff = filter(parameters);
    const float lowest = value_of(key_of(cutoff));
    Draw draw(parameters, position, maximum(), cutoff);
    offer_group(draw, best_group_);  // first: the others then have something to beat
    for (std::size_t group = 0; group < largest_.size(); ++group)
      if (largest_[group] >= lowest && group != best_group_) offer_group(draw, group);
    return draw.token();
  }

  // The law of `draw` (of `greedy` at temperature 0), into zeros.
  void write_probabilities(const SamplingParameters& parameters, double* probabilities) {
    if (parameters.temperature <= 0.0) {
      probabilities[greedy()] = 1.0;
      return;
    }
    const Ranked cutoff = filter(parameters);
    double total = 0.0;
    for_each_from(std::max(value_of(key_of(cutoff)), -FLT_MAX), [&](std::int32_t token) {
      if (ranked(token) < cutoff) return;
      total += probabilities[token] = std::exp((double(logits_[token]) - double(maximum())) / parameters.temperature);
    });
    for_each_from(std::max(value_of(key_of(cutoff)), -FLT_MAX), [&](std::int32_t token) { probabilities[token] /= total; });
  }

  // The `count` first tokens of the order that are allowed, unsorted.
  std::vector<Ranked>& first(std::int64_t count) {
    // At least `count` tokens are no smaller than the count-th largest of the groups' maxima.
    float bound = -FLT_MAX;
    if (std::size_t(count) < largest_.size()) {
      std::vector<float> maxima = largest_;
      std::nth_element(maxima.begin(), maxima.begin() + (count - 1), maxima.end(), std::greater<>());
      bound = std::max(bound, maxima[count - 1]);
    }
    ranked_.clear();
    for_each_from(bound, [&](std::int32_t token) { ranked_.push_back(ranked(token)); });
    if (std::size_t(count) < ranked_.size()) {
      std::nth_element(ranked_.begin(), ranked_.begin() + (count - 1), ranked_.end(), std::greater<>());
      ranked_.resize(count);
    }
    return ranked_;
  }

  // Sum of all probability weights, which are kept.
  double weigh(float* lowest = nullptr) {
    weights_.resize(vocabulary_);
    float ignored;
    return octavo::weigh(logits_, vocabulary_, maximum(), weights_.data(), lowest ? lowest : &ignored);
  }

 private:
  int size_of(std::size_t group) const {
    return int(std::min<std::int64_t>(kGroup, std::int64_t(vocabulary_) - std::int64_t(group) * kGroup));
  }

  Ranked ranked(std::int32_t token) const { return rank(key_of(logits_[token]), token); }

  template <class Visit>
  void for_each_from(float bound, Visit&& visit) const {
    for (std::size_t group = 0; group < largest_.size(); ++group) {
      if (largest_[group] < bound) continue;
      const std::int32_t begin = std::int32_t(group * kGroup), end = begin + size_of(group);
      for (std::int32_t token = begin; token < end; ++token)
        if (logits_[token] >= bound) visit(token);
    }
  }

  void offer_group(Draw& draw, std::size_t group) const {
    draw.offer(logits_ + group * kGroup, std::int32_t(group * kGroup), size_of(group), largest_[group]);
  }

  Ranked filter(const SamplingParameters& parameters) {
    Ranked cutoff = kEverything;
    if (parameters.top_k > 0 && parameters.top_k < vocabulary_) {
      std::vector<Ranked>& tokens = first(parameters.top_k);
      const auto weight_of = [&](Ranked token) { return double(weight(value_of(key_of(token)) - maximum())); };
      double wanted = std::numeric_limits<double>::infinity();
      if (parameters.top_p < 1.0) {
        double total = 0.0;
        for (const Ranked token : tokens) total += weight_of(token);
        wanted = parameters.top_p * total;
      }
      cutoff = last_of_weight(tokens, wanted, weight_of);
    } else if (parameters.top_p < 1.0) {
      cutoff = nucleus(parameters.top_p);
    }
    return parameters.min_p > 0.0 ? std::max(cutoff, likely(parameters.min_p)) : cutoff;
  }

  // The last token of the shortest beginning of the order that has the wanted weight, or all there is.
  template <class WeightOf>
  Ranked last_of_weight(std::vector<Ranked>& tokens, double wanted, WeightOf&& weight_of) const {
    auto begin = tokens.begin(), end = tokens.end();
    if (wanted == std::numeric_limits<double>::infinity()) return *std::min_element(begin, end);
    double before = 0.0;
    while (end - begin > 1) {
      const auto middle = begin + (end - begin) / 2;
      std::nth_element(begin, middle, end, std::greater<>());
      double sum = 0.0;
      for (auto token = begin; token != middle; ++token) sum += weight_of(*token);
      if (before + sum >= wanted) {
        end = middle;
      } else {
        before += sum;
        begin = middle;
      }
    }
    return *begin;
  }

  // top_p over the whole vocabulary: weights by intervals of logits, then the one interval where the sum is reached.
  Ranked nucleus(double top_p) {
    constexpr int kIntervals = 2048;
    float lowest;
    const double wanted = top_p * weigh(&lowest);
    const float scale = float(kIntervals - 1) / std::clamp(-lowest, 1e-6f, 24.0f);
    // Rounding keeps the order of logits, so intervals never mix.
    const auto interval = [&](std::int32_t token) { return int((maximum() - logits_[token]) * scale); };
    std::vector<double> sums(kIntervals, 0.0);
    for_each_from(maximum() - 24.0f, [&](std::int32_t token) {
      sums[std::min(interval(token), kIntervals - 1)] += double(weights_[token]);
    });
    int crossing = 0;
    double before = 0.0;
    while (crossing < kIntervals - 1 && before + sums[crossing] < wanted) before += sums[crossing++];
    ranked_.clear();
    for_each_from(maximum() - 24.0f, [&](std::int32_t token) {
      if (std::min(interval(token), kIntervals - 1) == crossing) ranked_.push_back(ranked(token));
    });
    return last_of_weight(ranked_, wanted - before, [&](Ranked token) { return double(weights_[token_of(token)]); });
  }

  // min_p keeps logits no lower than this far below the maximum.
  Ranked likely(double min_p) const {
    const double margin = logarithm(min_p);
    std::int64_t low = kMinusInfinityKey, high = key_of(maximum());  // the lowest key that is kept is in (low, high]
    while (high - low > 1) {
      const std::int64_t middle = low + (high - low) / 2;
      const bool kept = double(value_of(std::int32_t(middle))) - double(maximum()) >= margin;
      (kept ? high : low) = middle;
    }
    return Ranked(std::uint32_t(high) ^ 0x80000000u) << 32;
  }

  const float* logits_ = nullptr;
  std::int32_t vocabulary_ = 0;
  std::size_t best_group_ = 0;
  std::vector<float> largest_;  // of each group of kGroup tokens
  std::vector<float> weights_;
  std::vector<Ranked> ranked_;
};

// --- what comes before the filters ----------------------------------------------------------------------------------

inline float finite(double value) { return float(std::clamp(value, double(-FLT_MAX), double(FLT_MAX))); }

// Keskar et al. 2019 (CTRL, section 4.1) as llama.cpp and transformers have it, and OpenAI's two penalties.
void penalise(const SamplingParameters& parameters, const std::int32_t* begin, const std::int32_t* end, float* logits) {
  std::vector<std::int32_t> tokens(begin, end);
  std::sort(tokens.begin(), tokens.end());
  for (std::size_t i = 0, next; i < tokens.size(); i = next) {
    for (next = i; next < tokens.size() && tokens[next] == tokens[i];) ++next;
    double value = double(logits[tokens[i]]);
    value = value > 0.0 ? value / parameters.repetition_penalty : value * parameters.repetition_penalty;
    value = value - (double(next - i) * parameters.frequency_penalty + parameters.presence_penalty);
    if (logits[tokens[i]] >= -FLT_MAX) logits[tokens[i]] = finite(value);
  }
}

void adjust(const SamplingInput& input, std::int32_t row, float* logits) {
  for (std::int64_t i = input.bias_offsets[row]; i < input.bias_offsets[row + 1]; ++i) {
    float& logit = logits[input.bias_tokens[i]];
    const float bias = input.bias_values[i];
    logit = bias < -FLT_MAX || logit < -FLT_MAX ? -std::numeric_limits<float>::infinity()
                                                : finite(double(logit) + double(bias));
  }
  const std::int32_t* history = input.history;
  penalise(input.parameters[row], history + input.history_offsets[row], history + input.history_offsets[row + 1], logits);
  if (!input.mask) return;
  const std::uint32_t* words = input.mask + std::size_t(row) * ((std::size_t(input.vocabulary) + 31) / 32);
  for (std::int32_t token = 0; token < input.vocabulary; ++token)
    if (!(words[token / 32] >> (token % 32) & 1u)) logits[token] = -std::numeric_limits<float>::infinity();
}

// Takes a row in as the filters see it; 0, or the code of what is wrong with it.
std::int32_t read_row(const SamplingInput& input, std::int32_t index, Row& row, std::vector<float>& scratch) {
  const float* logits = input.logits + std::size_t(index) * input.vocabulary;
  if (!row.read(logits, input.vocabulary)) return kNotFinite;
  const bool adjusted = input.mask || input.bias_offsets[index] < input.bias_offsets[index + 1] ||
                        input.history_offsets[index] < input.history_offsets[index + 1];
  if (adjusted) {
    scratch.assign(logits, logits + input.vocabulary);
    adjust(input, index, scratch.data());
    row.read(scratch.data(), input.vocabulary);
    if (row.maximum() < -FLT_MAX) return kNothingAllowed;
  }
  return 0;
}

std::int32_t sample_row(const SamplingInput& input, std::int32_t index, Row& row, std::vector<float>& scratch) {
  const SamplingParameters& parameters = input.parameters[index];
  if (const std::int32_t failure = read_row(input, index, row, scratch)) return failure;
  return parameters.temperature <= 0.0 ? row.greedy() : row.draw(parameters, input.positions[index]);
}

}  // namespace

std::int32_t sample(const SamplingInput& input, std::int32_t* tokens) {
  Row row;
  std::vector<float> scratch;
  std::int32_t failed = 0;
  for (std::int32_t index = 0; index < input.rows; ++index) {
    tokens[index] = sample_row(input, index, row, scratch);
    failed += tokens[index] < 0;
  }
  return failed;
}

std::int32_t distribution(const SamplingInput& input, double* probabilities) {
  Row row;
  std::vector<float> scratch;
  std::int32_t failed = 0;
  for (std::int32_t index = 0; index < input.rows; ++index, probabilities += input.vocabulary) {
    std::fill_n(probabilities, input.vocabulary, 0.0);
    const std::int32_t failure = read_row(input, index, row, scratch);
    if (failure) ++failed;
    else row.write_probabilities(input.parameters[index], probabilities);
  }
  return failed;
}

void gumbel(std::uint64_t seed, std::int32_t position, const std::int32_t* tokens, std::size_t count, double* noise) {
  for (std::size_t i = 0; i < count; ++i)
    noise[i] = gumbel_of_word(seed, position, tokens[i], random_word(seed, position, tokens[i], 0));
}

bool log_probabilities(const float* logits, std::int32_t vocabulary, std::int32_t chosen, std::int32_t count,
                       float* chosen_value, std::int32_t* tokens, float* values) {
  Row row;
  if (!row.read(logits, vocabulary)) return false;
  const double normalizer = double(row.maximum()) + logarithm(row.weigh());
  *chosen_value = float(double(logits[chosen]) - normalizer);
  if (count == 0) return true;
  std::vector<Ranked>& likeliest = row.first(count);
  std::sort(likeliest.begin(), likeliest.end(), std::greater<>());
  for (std::size_t i = 0; i < likeliest.size(); ++i) {
    tokens[i] = token_of(likeliest[i]);
    values[i] = float(double(value_of(key_of(likeliest[i]))) - normalizer);
  }
  return true;
}

}  // namespace octavo
