#include "ops/suffix_automaton.h"

namespace octavo {

std::int32_t SuffixAutomaton::target(std::int32_t state, std::int32_t token) const {
  const auto found = edge_of_.find(key(state, token));
  return found == edge_of_.end() ? -1 : edges_[found->second].target;
}

void SuffixAutomaton::set(std::int32_t state, std::int32_t token, std::int32_t target) {
  const auto [found, is_new] = edge_of_.try_emplace(key(state, token), std::int32_t(edges_.size()));
  if (!is_new) {
    edges_[found->second].target = target;
    return;
  }
  edges_.push_back({token, target, states_[state].edges});
  states_[state].edges = std::int32_t(edges_.size()) - 1;
}

// A copy of `from` for its shorter strings, those that end the parent's with the token.
std::int32_t SuffixAutomaton::clone(std::int32_t from, std::int32_t parent, std::int32_t token) {
  const std::int32_t copy = std::int32_t(states_.size());
  states_.push_back({states_[parent].length + 1, states_[from].link, states_[from].latest, -1});
  for (std::int32_t edge = states_[from].edges; edge >= 0; edge = edges_[edge].next)
    set(copy, edges_[edge].token, edges_[edge].target);
  for (std::int32_t state = parent; state >= 0 && target(state, token) == from; state = states_[state].link)
    set(state, token, copy);
  states_[from].link = copy;
  return copy;
}

void SuffixAutomaton::extend(std::int32_t token) {
  // The end so far is now a place before the end.  Long chains of links (one token repeated) change only at their
  // near end: the far ones have a place already, and any place will do for so short a match.
  constexpr int kRefreshed = 16;
  const std::int32_t place = size() - 1;
  std::int32_t refreshed = last_;
  for (int i = 0; refreshed > 0; ++i, refreshed = states_[refreshed].link)
    if (i < kRefreshed || states_[refreshed].latest < 0) states_[refreshed].latest = place;
    else break;
  text_.push_back(token);
  const std::int32_t current = std::int32_t(states_.size());
  states_.push_back({states_[last_].length + 1, 0, -1, -1});
  std::int32_t state = last_;
  for (; state >= 0 && target(state, token) < 0; state = states_[state].link) set(state, token, current);
  if (state >= 0) {
    const std::int32_t next = target(state, token);
    states_[current].link = states_[next].length == states_[state].length + 1 ? next : clone(next, state, token);
  }
  last_ = current;
}

Match SuffixAutomaton::repeated() const {
  const std::int32_t state = last_ ? states_[last_].link : 0;
  return {state, states_[state].length};
}

Match SuffixAutomaton::advance(Match match, std::int32_t token) const {
  while (true) {
    const std::int32_t next = target(match.state, token);
    if (next >= 0) return {next, match.length + 1};
    if (match.state == 0) return {};
    match.state = states_[match.state].link;
    match.length = states_[match.state].length;
  }
}

std::int32_t SuffixAutomaton::continuation(Match match, std::int32_t count, std::int32_t* tokens) const {
  const std::int32_t place = match.state > 0 ? states_[match.state].latest : -1;
  if (place < 0 || place + 1 >= size()) return 0;
  const std::int32_t period = size() - 1 - place;
  for (std::int32_t i = 0; i < count; ++i) tokens[i] = text_[place + 1 + i % period];
  return count;
}

}  // namespace octavo
