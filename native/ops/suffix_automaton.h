// The suffix automaton of a growing text of tokens (Blumer et al. 1985; online construction): which of its ends have
// been there before, and what came after.  Amortised constant time and at most 2 states for each token.
//
// A state stands for all substrings with the same set of end positions; its longest one has length_[state], and
// link_[state] is the state of the longest suffix that has more end positions.  State 0 is the empty string.
// The slow twin is brute force: tests/decoding/speculation/test_suffix.py.
#pragma once
#include <cstdint>
#include <unordered_map>
#include <vector>

namespace octavo {

// An end of some text that is also in the automaton.
struct Match {
  std::int32_t state = 0;
  std::int32_t length = 0;
};

class SuffixAutomaton {
 public:
  SuffixAutomaton() : states_(1) {}

  void extend(std::int32_t token);

  // The longest proper end of the text that stands in it before.
  Match repeated() const;

  // A text elsewhere that ended in `match` goes on with a token.
  Match advance(Match match, std::int32_t token) const;

  // Up to `count` tokens after the latest earlier place of the match, the own end excepted; a place whose
  // continuation reaches the end of the text goes on as the period that it then is.  Returns how many were written.
  std::int32_t continuation(Match match, std::int32_t count, std::int32_t* tokens) const;

  std::int32_t size() const { return std::int32_t(text_.size()); }
  std::int32_t state_count() const { return std::int32_t(states_.size()); }

 private:
  struct State {
    std::int32_t length = 0, link = -1;
    std::int32_t latest = -1;  // an end position of it, the latest but the text's own end
    std::int32_t edges = -1;   // the first of its edges
  };
  struct Edge {
    std::int32_t token, target, next;
  };

  static std::uint64_t key(std::int32_t state, std::int32_t token) {
    return (std::uint64_t(std::uint32_t(state)) << 32) | std::uint32_t(token);
  }
  std::int32_t target(std::int32_t state, std::int32_t token) const;
  void set(std::int32_t state, std::int32_t token, std::int32_t target);
  std::int32_t clone(std::int32_t from, std::int32_t parent, std::int32_t token);

  std::vector<State> states_;
  std::vector<Edge> edges_;
  std::unordered_map<std::uint64_t, std::int32_t> edge_of_;  // (state, token) -> index of an edge
  std::vector<std::int32_t> text_;
  std::int32_t last_ = 0;
};

}  // namespace octavo
