#include "grammar/expressions.h"

#include <algorithm>
#include <deque>
#include <set>
#include <string>

#include "grammar/errors.h"
#include "grammar/work.h"

namespace octavo::grammar {

namespace {

constexpr int kMaxDepth = 4000;  // of derivatives inside derivatives: far less than a thread's stack

struct Depth {
  explicit Depth(int& depth) : depth_(depth) {
    if (++depth_ > kMaxDepth) {
      --depth_;
      throw TooComplex("the expression nests too deep to be followed");
    }
  }
  ~Depth() { --depth_; }
  int& depth_;
};

}  // namespace

Algebra::Algebra(int max_expressions, int search_budget)
    : max_expressions_(std::size_t(max_expressions)), search_budget_(std::size_t(search_budget)) {
  Term nothing{.kind = TermKind::empty, .nullable = false, .plain = true};
  nothing.content = ContentBuilder(1).done();
  empty = intern(std::move(nothing));
  Term nil{.kind = TermKind::epsilon, .nullable = true, .plain = true};
  nil.content = ContentBuilder(2).done();
  epsilon = intern(std::move(nil));
  any_character = characters({{0, 0x10FFFF}});
  anything = -2;  // not known while it is made
  anything = repeat(any_character, 0, kUnbounded);
}

int Algebra::intern(Term term) {
  const auto known = ids_.find(term.content);
  if (known != ids_.end()) return known->second;
  Allowance::spend(kTermCost);
  if (terms_.size() >= max_expressions_)
    throw TooComplex("a regular part of the grammar needs over " + std::to_string(max_expressions_) + " states");
  ids_.emplace(term.content, int(terms_.size()));
  live_.push_back(-1);
  lasts_.push_back(-1);
  moves_.emplace_back();
  live_moves_.emplace_back();
  terms_.push_back(std::make_unique<Term>(std::move(term)));
  return int(terms_.size()) - 1;
}

int Algebra::characters(Intervals intervals) {
  Term made{.kind = TermKind::characters, .nullable = false, .plain = true};
  made.intervals = merge_intervals(std::move(intervals));
  if (made.intervals.empty()) return empty;
  ContentBuilder content(3);
  for (const Interval& interval : made.intervals) content.add(std::uint64_t(interval.low) << 32 | interval.high);
  made.content = content.done();
  return intern(std::move(made));
}

int Algebra::leaf(const Leaf& leaf) {
  const bool nullable = leaves_.nullable(leaf);
  // From every node of a trie of texts one is reached, unless there are none at all.
  const bool plain = leaf.kind == LeafKind::texts && (leaf.state != 0 || nullable || !leaves_.moves(leaf).empty());
  Term made{.kind = TermKind::leaf, .nullable = nullable, .plain = plain};
  made.leaf = leaf;
  made.content = ContentBuilder(4).add(leaves_.content(leaf)).done();
  return intern(std::move(made));
}

int Algebra::concat(int left, int right) {
  std::vector<int> before;
  for (;;) {
    if (left == empty || right == empty) return empty;
    const Term& first = term(left);
    if (first.kind != TermKind::concat) break;
    before.push_back(first.first);
    left = first.second;
  }
  for (;;) {
    int joined;
    if (left == epsilon) {
      joined = right;
    } else if (right == epsilon) {
      joined = left;
    } else if (left == right && left == anything) {
      joined = left;
    } else {
      const Term &one = term(left), &two = term(right);
      Term made{.kind = TermKind::concat, .nullable = one.nullable && two.nullable, .plain = one.plain && two.plain,
                .first = left, .second = right};
      made.content = ContentBuilder(5).add(one.content).add(two.content).done();
      joined = intern(std::move(made));
    }
    if (before.empty()) return joined;
    Allowance::spend(1);
    left = before.back();
    before.pop_back();
    right = joined;
  }
}

int Algebra::either(const std::vector<int>& parts) {
  std::vector<int> members;
  Intervals intervals;
  const auto take = [&](int member) {
    const Term& inner = term(member);
    if (inner.kind == TermKind::characters) {
      intervals.insert(intervals.end(), inner.intervals.begin(), inner.intervals.end());
    } else if (member != empty) {
      members.push_back(member);
    }
  };
  for (int part : parts) {
    if (term(part).kind == TermKind::either) {
      for (int member : term(part).members) take(member);
    } else {
      take(part);
    }
  }
  if (!intervals.empty()) members.push_back(characters(std::move(intervals)));
  Allowance::spend(kMemberCost * std::int64_t(members.size()));
  std::sort(members.begin(), members.end());
  members.erase(std::unique(members.begin(), members.end()), members.end());
  bool nullable = false, plain = true;
  for (int member : members) {
    if (member == anything) return anything;
    nullable |= member != epsilon && term(member).nullable;
    plain &= term(member).plain;
  }
  if (nullable) std::erase(members, epsilon);
  if (members.size() < 2) return members.empty() ? empty : members[0];
  nullable |= std::find(members.begin(), members.end(), epsilon) != members.end();
  Content sum;
  for (int member : members) sum = sum + ContentBuilder(6).add(term(member).content).done();
  Term made{.kind = TermKind::either, .nullable = nullable, .plain = plain};
  made.content = ContentBuilder(7).add(sum).done();
  made.members = std::move(members);
  return intern(std::move(made));
}

int Algebra::both(const std::vector<int>& parts) {
  std::vector<int> members;
  for (int part : parts) {
    const Term& inner = term(part);
    if (inner.kind == TermKind::both) members.insert(members.end(), inner.members.begin(), inner.members.end());
    else members.push_back(part);
  }
  Allowance::spend(kMemberCost * std::int64_t(members.size()));
  std::sort(members.begin(), members.end());
  members.erase(std::unique(members.begin(), members.end()), members.end());
  std::erase(members, anything);
  const auto has = [&](int member) { return std::binary_search(members.begin(), members.end(), member); };
  if (has(empty)) return empty;
  std::vector<int> sets;
  for (int member : members)
    if (term(member).kind == TermKind::characters) sets.push_back(member);
  if (sets.size() > 1) {
    Intervals common = term(sets[0]).intervals;
    for (int other : sets) common = intersect_intervals(common, term(other).intervals);
    std::erase_if(members, [&](int member) { return term(member).kind == TermKind::characters; });
    const int joined = characters(std::move(common));
    if (joined == empty) return empty;
    members.insert(std::lower_bound(members.begin(), members.end(), joined), joined);
  }
  if (members.empty()) return anything;
  if (members.size() == 1) return members[0];
  bool nullable = true;
  for (int member : members) {
    const Term& inner = term(member);
    if (inner.kind == TermKind::negation && has(inner.first)) return empty;
    nullable &= inner.nullable;
  }
  if (has(epsilon)) return nullable ? epsilon : empty;
  Content sum;
  for (int member : members) sum = sum + ContentBuilder(8).add(term(member).content).done();
  Term made{.kind = TermKind::both, .nullable = nullable, .plain = false};
  made.content = ContentBuilder(9).add(sum).done();
  made.members = std::move(members);
  return intern(std::move(made));
}

int Algebra::negate(int part) {
  if (part == empty) return anything;
  if (part == anything) return empty;
  const Term& inner = term(part);
  if (inner.kind == TermKind::negation) return inner.first;
  Term made{.kind = TermKind::negation, .nullable = !inner.nullable, .plain = false, .first = part};
  made.content = ContentBuilder(10).add(inner.content).done();
  return intern(std::move(made));
}

int Algebra::repeat(int part, int least, int most) {
  if (most == 0 || part == epsilon) return epsilon;
  if (part == empty) return least == 0 ? epsilon : empty;
  if (most == 1 && least == 1) return part;
  const Term& inner = term(part);
  if (inner.nullable) least = 0;
  if (inner.kind == TermKind::repeat && inner.second == 0 && inner.third == kUnbounded && least <= 1) return part;
  Term made{.kind = TermKind::repeat, .nullable = least == 0, .plain = inner.plain, .first = part, .second = least,
            .third = most};
  made.content = ContentBuilder(11).add(inner.content).add(std::uint64_t(least)).add(std::uint64_t(most)).done();
  return intern(std::move(made));
}

int Algebra::recursive(bool nullable) {
  Term made{.kind = TermKind::recursive, .nullable = nullable, .plain = false};
  made.content = ContentBuilder(12).add(unique_number()).done();
  return intern(std::move(made));
}

const Moves& Algebra::moves(int expression) {
  auto& found = moves_[std::size_t(expression)];
  if (!found) {
    const Depth deeper(depth_);
    auto made = std::make_unique<Moves>(derive(expression));
    Allowance::spend(1 + kMoveCost * std::int64_t(made->size()));
    moves_[std::size_t(expression)] = std::move(made);  // `found` may have moved: derivatives make terms
  }
  return *moves_[std::size_t(expression)];
}

Moves Algebra::derive(int expression) {
  const Term& here = term(expression);
  Moves result;
  switch (here.kind) {
    case TermKind::characters:
      for (const Interval& interval : here.intervals) result.push_back({interval.low, interval.high, epsilon});
      return result;
    case TermKind::leaf:
      for (const LeafMove& move : leaves_.moves(here.leaf)) result.push_back({move.low, move.high, leaf(move.leaf)});
      return result;
    case TermKind::concat: {
      for (const Move& move : moves(here.first)) result.push_back({move.low, move.high, concat(move.target, here.second)});
      if (!nullable(here.first)) return result;
      const Moves& rest = moves(here.second);
      return combine({&result, &rest}, true);
    }
    case TermKind::repeat: {
      const int rest = repeat(here.first, std::max(here.second - 1, 0),
                              here.third == kUnbounded ? kUnbounded : here.third - 1);
      for (const Move& move : moves(here.first)) result.push_back({move.low, move.high, concat(move.target, rest)});
      return result;
    }
    case TermKind::either:
    case TermKind::both: {
      std::vector<const Moves*> lists;
      for (int member : here.members) lists.push_back(&moves(member));
      return combine(lists, here.kind == TermKind::either);
    }
    case TermKind::negation:
      return complement(moves(here.first));
    case TermKind::recursive:
      return moves(definitions_.at(expression));
    default:
      return result;
  }
}

Moves Algebra::complement(const Moves& moves) {
  Moves result;
  Intervals covered;
  for (const Move& move : moves) {
    result.push_back({move.low, move.high, negate(move.target)});
    covered.push_back({move.low, move.high});
  }
  for (const Interval& gap : invert_intervals(std::move(covered))) result.push_back({gap.low, gap.high, anything});
  return tidy(std::move(result));
}

Moves Algebra::combine(const std::vector<const Moves*>& lists, bool is_either) {
  std::vector<std::uint32_t> bounds;
  for (const Moves* list : lists)
    for (const Move& move : *list) bounds.insert(bounds.end(), {move.low, move.high + 1});
  std::sort(bounds.begin(), bounds.end());
  bounds.erase(std::unique(bounds.begin(), bounds.end()), bounds.end());
  std::vector<std::size_t> at(lists.size(), 0);
  std::vector<int> active;
  Moves result;
  for (std::size_t i = 0; i + 1 < bounds.size(); ++i) {
    active.clear();
    for (std::size_t list = 0; list < lists.size(); ++list) {
      const Moves& moves = *lists[list];
      while (at[list] < moves.size() && moves[at[list]].high < bounds[i]) ++at[list];
      if (at[list] < moves.size() && moves[at[list]].low <= bounds[i]) active.push_back(moves[at[list]].target);
    }
    Allowance::spend(kMemberCost * std::int64_t(lists.size()));
    if (active.empty() || (!is_either && active.size() < lists.size())) continue;
    result.push_back({bounds[i], bounds[i + 1] - 1, is_either ? either(active) : both(active)});
  }
  return tidy(std::move(result));
}

Moves Algebra::tidy(Moves moves) const {
  std::sort(moves.begin(), moves.end(), [](const Move& left, const Move& right) { return left.low < right.low; });
  Moves result;
  for (const Move& move : moves) {
    if (move.target == empty) continue;
    if (!result.empty() && result.back().target == move.target && result.back().high + 1 == move.low) {
      result.back().high = move.high;
    } else {
      result.push_back(move);
    }
  }
  return result;
}

bool Algebra::live(int expression) {
  const Term& here = term(expression);
  if (here.plain || here.nullable) return expression != empty;
  const std::int8_t known = live_[std::size_t(expression)];
  return known < 0 ? search(expression, search_budget_) : known > 0;
}

bool Algebra::search(int start, std::size_t budget) {
  std::unordered_map<int, int> parents{{start, -1}};
  std::deque<int> queue{start};
  while (!queue.empty()) {
    const int current = queue.front();
    queue.pop_front();
    for (const Move& move : moves(current)) {
      Allowance::spend(kMoveCost);
      int target = move.target;
      if (!parents.try_emplace(target, current).second) continue;
      if (term(target).nullable || term(target).plain || live_[std::size_t(target)] > 0) {
        for (; target >= 0; target = parents[target]) live_[std::size_t(target)] = 1;
        return true;
      }
      if (live_[std::size_t(target)] < 0) queue.push_back(target);
      if (parents.size() > budget)
        throw TooComplex("it could not be decided within the limits whether a pattern can be satisfied");
    }
  }
  for (const auto& [seen, _] : parents)
    if (live_[std::size_t(seen)] < 0) live_[std::size_t(seen)] = 0;
  return false;
}

const Moves& Algebra::live_moves(int expression) {
  if (!live_moves_[std::size_t(expression)]) {
    auto made = std::make_unique<Moves>();
    for (const Move& move : moves(expression))
      if (live(move.target)) made->push_back(move);
    live_moves_[std::size_t(expression)] = std::move(made);
  }
  return *live_moves_[std::size_t(expression)];
}

namespace {
const Move* find_move(const Moves& moves, std::uint32_t code_point) {
  const auto after = std::upper_bound(moves.begin(), moves.end(), code_point,
                                      [](std::uint32_t code, const Move& move) { return code < move.low; });
  if (after == moves.begin()) return nullptr;
  const Move& move = *(after - 1);
  return code_point <= move.high ? &move : nullptr;
}
}  // namespace

int Algebra::step(int expression, std::uint32_t code_point) {
  const Move* move = find_move(moves(expression), code_point);
  return move ? move->target : empty;
}

int Algebra::live_step(int expression, std::uint32_t code_point) {
  const Move* move = find_move(live_moves(expression), code_point);
  return move ? move->target : -1;
}

bool Algebra::reachable(int expression, std::uint32_t low, std::uint32_t high) {
  const Moves& moves = live_moves(expression);
  const auto after = std::upper_bound(moves.begin(), moves.end(), high,
                                      [](std::uint32_t code, const Move& move) { return code < move.low; });
  return after != moves.begin() && (after - 1)->high >= low;
}

}  // namespace octavo::grammar
