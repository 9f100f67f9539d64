// The positions of an automaton that are inside a text: which are the same, what labels them, what a character leads to.
// The bytes within a character are in text_steps.cpp.
#include <string>

#include "grammar/automaton.h"
#include "grammar/errors.h"
#include "grammar/work.h"

namespace octavo::grammar {
namespace {

int free_characters(const TextPlace& place) {
  if (place.watch >= 0) return 0;
  int expression = place.expression;
  if (place.mode == Mode::utf8) {  // one that `simplified` made: any character, and then?
    const Term& term = place.algebra->term(expression);
    if (term.kind != TermKind::concat || term.first != place.algebra->any_character) return 0;
    expression = term.second;
  } else if (place.mode != Mode::body) {
    return 0;
  }
  if (expression == place.algebra->anything) return kEndless;
  const Term& term = place.algebra->term(expression);
  const bool counts = term.kind == TermKind::repeat && term.first == place.algebra->any_character && term.second == 0;
  return counts ? term.third : 0;
}

int lasting_characters(const TextPlace& place) {
  int expression = place.expression;
  Algebra& algebra = *place.algebra;
  if (place.mode == Mode::utf8) {
    const Term& term = algebra.term(expression);
    if (term.kind == TermKind::concat && term.first == algebra.any_character) expression = term.second;
  } else if (place.mode != Mode::body) {
    return 0;
  }
  const Term& term = algebra.term(expression);
  const bool counts = term.kind == TermKind::repeat && term.first == algebra.any_character && term.third >= 0;
  if (counts) return place.mode == Mode::body || expression != place.expression ? term.third : 0;
  return algebra.lasts(expression) ? kEndless : 0;
}

}  // namespace

int Automaton::watch(Watch watch) {
  ContentBuilder content(201);
  content.add(unique_).add(std::uint64_t(watch.labeler)).add(watch.algebra->term(watch.texts).content);
  for (int expression : watch.classes) content.add(watch.algebra->term(expression).content);
  content.add(std::uint64_t(std::int64_t(watch.captured)));
  const auto [place, is_new] = watch_ids_.try_emplace(content.done(), int(watches_.size()));
  if (is_new) watches_.push_back(std::move(watch));
  return place->second;
}

int Automaton::capture(const std::u32string& text) {
  const auto [place, is_new] = captured_ids_.try_emplace(text, int(captured_.size()));
  if (is_new) captured_.push_back(text);
  return place->second;
}

int Automaton::without_capture(const Position& position) {
  TextPlace place = position.text;
  Watch other = watches_[std::size_t(place.watch)];
  other.captured = kSomeText;
  place.watch = watch(std::move(other));
  return text(place);
}

int Automaton::label_of(const TextPlace& place) {
  if (place.watch < 0) return place.label;
  const Watch& watch = watches_[std::size_t(place.watch)];
  std::uint32_t classes = 0;
  for (std::size_t i = 0; i < watch.classes.size(); ++i)
    classes |= std::uint32_t(watch.algebra->nullable(watch.classes[i])) << i;
  const Term& texts = watch.algebra->term(watch.texts);
  const int index = texts.kind == TermKind::leaf ? watch.algebra->leaves().text_index(texts.leaf) : -1;
  Allowance::spend(kNetworkCost);
  if (watch.captured >= 0)
    return network_.label(watch.labeler, index, classes, &captured_[std::size_t(watch.captured)]);
  const std::array<std::uint32_t, 3> key{std::uint32_t(watch.labeler), std::uint32_t(index), classes};
  const auto known = labels_.find(key);
  if (known != labels_.end()) return known->second;
  return labels_[key] = network_.label(watch.labeler, index, classes, nullptr);
}

// Inside a character all of whose ends lead to the same, it does not matter which character has begun.
void Automaton::simplify(TextPlace& place) {
  const Partial partial = place.partial;
  const int bits = 6 * partial.left;
  if (partial.high - partial.low != (1u << bits) - 1) return;
  Algebra& algebra = *place.algebra;
  const auto covering = [&](const Moves& moves) {  // kDead: none, kUnknown: several
    int found = kDead;
    for (const Move& move : moves) {
      if (move.high < partial.low || move.low > partial.high) continue;
      found = move.low <= partial.low && move.high >= partial.high ? move.target : kUnknown;
    }
    return found;
  };
  const int target = covering(algebra.live_moves(place.expression));
  if (target < 0) return;
  if (place.watch >= 0) {
    Watch after = watches_[std::size_t(place.watch)];
    if (after.captured >= 0) return;
    if (covering(algebra.moves(after.texts)) != kDead) return;
    after.texts = algebra.empty;
    bool constant = true;
    for (int& expression : after.classes) {
      const int one = covering(algebra.moves(expression));
      if (one == kUnknown) return;
      expression = one == kDead ? algebra.empty : one;
      constant = constant && (expression == algebra.empty || expression == algebra.anything);
    }
    if (!constant)
      for (int& expression : after.classes) expression = algebra.concat(algebra.any_character, expression);
    place.watch = watch(std::move(after));
    if (constant) {
      place.label = label_of(place);
      place.watch = -1;
    }
  }
  constexpr Partial kAny[] = {{}, {0x80, 0xBF, 1}, {0x1000, 0x1FFF, 2}, {0x40000, 0x7FFFF, 3}};
  place.partial = kAny[partial.left];
  place.expression = algebra.concat(algebra.any_character, target);
}

int Automaton::text(TextPlace place) {
  if (place.partial.left > 0 && (place.mode == Mode::utf8 || place.mode == Mode::plain)) simplify(place);
  if (place.watch >= 0) {
    // A watch that will say the same whatever comes is replaced by what it says.
    const Watch& watch = watches_[std::size_t(place.watch)];
    const Algebra& algebra = *watch.algebra;
    bool constant = watch.captured < 0 && watch.texts == algebra.empty;
    for (int expression : watch.classes)
      constant = constant && (expression == algebra.empty || expression == algebra.anything);
    if (constant || place.mode == Mode::closed) {
      place.label = label_of(place);
      place.watch = -1;
    }
  }
  ContentBuilder content(202);
  content.add(place.algebra->term(place.expression).content).add(std::uint64_t(place.mode));
  content.add(std::uint64_t(place.partial.low) << 32 | place.partial.high).add(std::uint64_t(place.partial.left));
  if (place.watch >= 0) {
    const Watch& watch = watches_[std::size_t(place.watch)];
    content.add(unique_).add(std::uint64_t(watch.labeler)).add(std::uint64_t(place.watch));
  }
  Position made;
  made.content = content.done();
  made.text = place;
  made.free = free_characters(place);
  made.lasting = lasting_characters(place);
  content.add(std::uint64_t(place.watch < 0 ? place.label : -1));
  return intern(content.done(), std::move(made));
}

int Automaton::after_character(TextPlace place, std::uint32_t code_point) {
  const int target = place.algebra->live_step(place.expression, code_point);
  if (target < 0) return kDead;
  place.expression = target;
  place.partial = {};
  if (place.mode != Mode::plain) place.mode = Mode::body;
  if (place.watch >= 0) {
    Watch after = watches_[std::size_t(place.watch)];
    after.texts = after.algebra->step(after.texts, code_point);
    for (int& expression : after.classes) expression = after.algebra->step(expression, code_point);
    if (after.captured >= 0)
      after.captured = capture(captured_[std::size_t(after.captured)] + char32_t(code_point));
    place.watch = watch(std::move(after));
  }
  return text(place);
}

}  // namespace octavo::grammar
