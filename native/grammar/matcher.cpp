#include "grammar/matcher.h"

#include <bit>

namespace octavo::grammar {

bool Matcher::accept_token(std::int32_t token) {
  if (stopped_ || token < 0) return false;
  const Vocabulary& vocabulary = *engine_->vocabulary;
  const std::string_view text = vocabulary.token(token);
  if (text.empty()) {
    if (vocabulary.stops(token)) stopped_ = completed();
    return stopped_;
  }
  return accept_bytes(text);
}

bool Matcher::accept_bytes(std::string_view text) {
  if (stopped_) return false;
  const int target = engine_->after(state(), text);
  if (target == kDead) return false;
  states_.push_back(target);
  return true;
}

bool Matcher::allows(std::int32_t token) {
  if (stopped_ || token < 0 || token >= engine_->vocabulary->size()) return false;
  if (engine_->vocabulary->stops(token)) return completed();
  const std::string_view text = engine_->vocabulary->token(token);
  return !text.empty() && engine_->after(state(), text) != kDead;
}

void Matcher::fill(std::uint32_t* words, std::size_t count) {
  if (stopped_) std::fill(words, words + count, 0);
  else engine_->masks.mask(state()).fill(words, count);
}

std::string Matcher::forced_bytes(std::size_t limit) {
  std::string result;
  int here = state();
  while (!stopped_ && result.size() < limit && engine_->automaton.state(here).endings.empty()) {
    const int byte = engine_->automaton.only_byte(here);
    if (byte < 0) break;
    result.push_back(char(byte));
    here = engine_->automaton.step(here, std::uint8_t(byte));
  }
  return result;
}

std::pair<std::size_t, std::int32_t> Matcher::allowed() {
  std::vector<std::uint32_t> words(engine_->vocabulary->words());
  fill(words.data(), words.size());
  std::size_t count = 0;
  std::int32_t one = -1;
  for (std::size_t word = 0; word < words.size(); ++word) {
    count += std::size_t(std::popcount(words[word]));
    if (words[word]) one = std::int32_t(word * 32) + std::countr_zero(words[word]);
  }
  return {count, one};
}

bool Matcher::rollback(std::size_t steps) {
  if (stopped_ && steps > 0) {
    stopped_ = false;
    --steps;
  }
  if (steps >= states_.size()) return false;
  states_.resize(states_.size() - steps);
  return true;
}

}  // namespace octavo::grammar
