// How a text can be ended from a state: short closing texts, by Dijkstra's search inside one rule at a time; the fast
// twin of octavo/grammar/engine/closing.py, which explains it.
#pragma once

#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "grammar/automaton.h"

namespace octavo::grammar {

class Closings {
 public:
  explicit Closings(Automaton& automaton) : automaton_(automaton) {}
  // Bytes that complete the text from this state, of at most `limit`.
  std::optional<std::string> find(int state, std::size_t limit);

 private:
  using Text = std::optional<std::string>;
  struct Ending {
    std::string text;
    int label;
  };
  using Edge = std::pair<std::string, int>;  // bytes, position
  std::optional<Ending> ending(int position);
  std::optional<Ending> search(int position);
  std::vector<Edge> edges(int position);
  bool text_edges(const Position& position, std::vector<Edge>& result);
  Text close(int position, int continuation);
  Text from(int continuation, int label);

  Automaton& automaton_;
  int depth_ = 0;
  std::unordered_map<int, std::optional<Ending>> endings_;
  std::unordered_map<int, std::vector<Call>> calls_;  // by Python's object
  std::unordered_set<int> active_;
  std::unordered_map<std::uint64_t, Text> after_;
};

}  // namespace octavo::grammar
