// One closing of a set of places over calls and ends.  While it runs, the context of a callee is its own name (the
// negative of its position, minus one): its set of callers may still grow; in the end the names become continuations.
#pragma once

#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "grammar/automaton.h"

namespace octavo::grammar {

class Closure {
 public:
  explicit Closure(Automaton& automaton) : automaton_(automaton) {}
  // The places that can read on, sorted, and the labels with which the text may end, sorted.
  std::pair<std::vector<Pair>, std::vector<int>> run(const std::vector<Pair>& pairs);

 private:
  struct Callers {
    std::vector<Frame> frames;
    std::vector<int> ended;
    bool resolving = false;
    int resolved = -1;
  };
  void add(int position, int context);
  void call(int callee, int returning, int context);
  void end(int context, int label);
  void resume(int returning, int context, int label);
  int resolve(int context);

  Automaton& automaton_;
  std::vector<Pair> order_, work_;
  std::unordered_set<std::uint64_t> many_;  // the same as order_, once it is long
  std::unordered_map<int, Callers> callers_;
  std::vector<int> endings_;
};

}  // namespace octavo::grammar
