// Regular expressions as hash-consed terms with derivatives: the fast twin of octavo/grammar/expressions.py, which
// says what each part means.  An expression is an int; equal ids mean equal terms.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "grammar/content.h"
#include "grammar/leaves.h"

namespace octavo::grammar {

struct Interval {
  std::uint32_t low, high;  // inclusive
  auto operator<=>(const Interval&) const = default;
};
using Intervals = std::vector<Interval>;

struct Move {
  std::uint32_t low, high;
  int target;
};
using Moves = std::vector<Move>;

constexpr int kUnbounded = -1;

Intervals merge_intervals(Intervals intervals);  // sorted, disjoint, without surrogates
Intervals intersect_intervals(const Intervals& left, const Intervals& right);
Intervals invert_intervals(Intervals intervals);

enum class TermKind : std::uint8_t {
  empty, epsilon, characters, leaf, concat, either, both, negation, repeat, recursive
};

struct Term {
  TermKind kind;
  bool nullable;
  bool plain;  // neither and, not nor leaf (but of texts) inside: then only `empty` is empty
  int first = 0, second = 0, third = 0;  // parts, and the bounds of a repeat
  std::vector<int> members = {};
  Intervals intervals = {};
  Leaf leaf = {};
  Content content = {};
};

class Algebra {
 public:
  Algebra(int max_expressions, int search_budget);
  Algebra(const Algebra&) = delete;
  Algebra& operator=(const Algebra&) = delete;

  int size() const { return int(terms_.size()); }
  const Term& term(int expression) const { return *terms_[std::size_t(expression)]; }
  bool nullable(int expression) const { return term(expression).nullable; }

  int characters(Intervals intervals);
  int leaf(const Leaf& leaf);
  int concat(int left, int right);
  int either(const std::vector<int>& parts);
  int both(const std::vector<int>& parts);
  int negate(int part);
  int repeat(int part, int least, int most);
  int recursive(bool nullable);
  void define(int name, int expression) { definitions_[name] = expression; }

  const Moves& moves(int expression);
  bool live(int expression);
  const Moves& live_moves(int expression);
  int step(int expression, std::uint32_t code_point);
  // The derivative from which some text can still match, or -1.
  int live_step(int expression, std::uint32_t code_point);
  bool reachable(int expression, std::uint32_t low, std::uint32_t high);
  // Whether some text still matches whatever characters come (`false` may also mean: not easily seen).
  bool lasts(int expression);

  LeafTable& leaves() { return leaves_; }

  int empty, epsilon, any_character, anything;

 private:
  int intern(Term term);
  Moves derive(int expression);
  Moves combine(const std::vector<const Moves*>& lists, bool either);
  Moves complement(const Moves& moves);
  Moves tidy(Moves moves) const;
  bool search(int start, std::size_t budget);
  int lasting_part(int expression);

  std::size_t max_expressions_;
  std::size_t search_budget_;
  int depth_ = 0;
  LeafTable leaves_;
  std::vector<std::unique_ptr<Term>> terms_;
  std::unordered_map<Content, int, ContentHash> ids_;
  std::unordered_map<int, int> definitions_;
  std::vector<std::unique_ptr<Moves>> moves_, live_moves_;
  std::vector<std::int8_t> live_, lasts_;  // -1: not known
};

}  // namespace octavo::grammar
