// Loops: characters that lead back to where they were.  Runs: characters of a text after which, whichever they are, the
// text goes on in the same way.  A counted class such as [a-z]{1,64} is one run after another; a subtree of the
// vocabulary's trie within them is taken whole.
#include <algorithm>
#include <bit>

#include "grammar/automaton.h"

namespace octavo::grammar {

namespace {

struct Ascii {
  std::uint64_t words[2] = {0, 0};
  int count() const { return std::popcount(words[0]) + std::popcount(words[1]); }
  std::uint32_t first() const {  // where there is one
    return std::uint32_t(words[0] ? std::countr_zero(words[0]) : 64 + std::countr_zero(words[1]));
  }
};

Ascii range(std::uint32_t low, std::uint32_t high) {
  Ascii result;
  for (std::uint32_t code = low; code <= std::min(high, 0x7Fu); ++code)
    result.words[code / 64] |= std::uint64_t(1) << (code % 64);
  return result;
}

// The most of `set` that leads to one target.
Ascii alike(const Moves& moves, const Ascii& set) {
  std::vector<std::pair<int, Ascii>> groups{{kDead, set}};  // at first what no interval covers
  for (const Move& move : moves) {
    if (move.low > 0x7F) break;
    const Ascii covered = range(move.low, move.high);
    std::size_t group = 1;
    while (group < groups.size() && groups[group].first != move.target) ++group;
    if (group == groups.size()) groups.push_back({move.target, {}});
    for (int word = 0; word < 2; ++word) {
      groups[group].second.words[word] |= covered.words[word] & set.words[word];
      groups[0].second.words[word] &= ~covered.words[word];
    }
  }
  Ascii best;
  for (const auto& [target, found] : groups)
    if (found.count() > best.count()) best = found;
  return best;
}

// The target of all characters from `low` to `high`; kDead where none leads on, kUnknown where they differ.
int target_of(const Moves& moves, std::uint32_t low, std::uint32_t high) {
  for (const Move& move : moves) {
    if (move.high < low) continue;
    if (move.low > high) break;
    return move.low <= low && high <= move.high ? move.target : kUnknown;
  }
  return kDead;
}

// The bytes of a text that stand for themselves.
Ascii ordinary(Mode mode) {
  Ascii set = range(0, 0x7F);
  if (mode == Mode::plain) return set;
  set.words[0] &= ~(range(0, 0x1F).words[0] | range('"', '"').words[0]);
  set.words[1] &= ~range('\\', '\\').words[1];
  return set;
}

// Takes from a set the characters that do not lead an expression back to itself; `rest` is where those lead that no
// interval has.
void keep_loop(const Moves& moves, int expression, int rest, Ascii& set) {
  Ascii back = rest == expression ? range(0, 0x7F) : Ascii{};
  for (const Move& move : moves) {
    const Ascii covered = range(move.low, move.high);
    for (int word = 0; word < 2; ++word)
      back.words[word] = move.target == expression ? back.words[word] | covered.words[word]
                                                   : back.words[word] & ~covered.words[word];
  }
  for (int word = 0; word < 2; ++word) set.words[word] &= back.words[word];
}

}  // namespace

void Automaton::find_loop(State& state) {
  state.loop_known = true;
  if (state.pairs.size() != 1) return;
  const Position& here = position(state.pairs[0].position);
  const TextPlace& place = here.text;
  const bool whole = place.mode == Mode::body || (place.mode == Mode::plain && place.partial == Partial{});
  if (here.kind != Position::Kind::text || !whole) return;
  Ascii set = ordinary(place.mode);
  keep_loop(place.algebra->live_moves(place.expression), place.expression, kDead, set);
  if (place.watch >= 0) {
    const Watch& watch = watches_[std::size_t(place.watch)];
    if (watch.captured != kNothing) return;
    keep_loop(watch.algebra->moves(watch.texts), watch.texts, watch.algebra->empty, set);
    for (int expression : watch.classes)
      keep_loop(watch.algebra->moves(expression), expression, watch.algebra->empty, set);
  }
  if (set.count() == 0) return;
  state.loop = std::make_unique<Loop>(Loop{{set.words[0], set.words[1]}, leads_alike(place, set.first())});
}

// All first bytes of characters that lead where the character `code` leads.
std::uint64_t Automaton::leads_alike(const TextPlace& place, std::uint32_t code) const {
  std::vector<const Moves*> lists{&place.algebra->live_moves(place.expression)};
  if (place.watch >= 0) {
    const Watch& watch = watches_[std::size_t(place.watch)];
    lists.push_back(&watch.algebra->moves(watch.texts));
    for (int expression : watch.classes) lists.push_back(&watch.algebra->moves(expression));
  }
  std::uint64_t leads = 0;
  for (int byte = 0xC2; byte <= 0xF4; ++byte) {
    Partial begun;
    begin_utf8(std::uint8_t(byte), begun);
    bool same = true;
    for (const Moves* moves : lists)
      same = same && target_of(*moves, begun.low, begun.high) == target_of(*moves, code, code);
    if (same) leads |= std::uint64_t(1) << (byte - 0xC0);
  }
  return leads;
}

// Within a character, of which it does not matter how it ends.
bool Automaton::any_end(const TextPlace& place) const {
  const Algebra& algebra = *place.algebra;
  const auto any = [&](int expression) {
    const Term& term = algebra.term(expression);
    return term.kind == TermKind::concat && term.first == algebra.any_character;
  };
  if (place.watch < 0) return any(place.expression);
  const Watch& watch = watches_[std::size_t(place.watch)];
  const auto empty_or_any = [&](int expression) { return expression == algebra.empty || any(expression); };
  return watch.captured == kNothing && watch.texts == algebra.empty && any(place.expression) &&
         std::all_of(watch.classes.begin(), watch.classes.end(), empty_or_any);
}

void Automaton::find_run(int index) {
  State& state = *states_[std::size_t(index)];
  state.run_known = true;
  if (state.pairs.size() != 1 || !state.endings.empty()) return;
  const Position& here = position(state.pairs[0].position);
  if (here.kind != Position::Kind::text) return;
  const TextPlace& place = here.text;
  if (place.partial.left > 0 && (place.mode == Mode::utf8 || place.mode == Mode::plain)) {
    if (!any_end(place)) return;
    int target = index;
    for (int left = place.partial.left; left > 0 && target != kDead; --left) target = step(target, 0x80);
    states_[std::size_t(index)]->run = {{0, 0}, 0, target, true};
    return;
  }
  const bool whole = place.mode == Mode::body || (place.mode == Mode::plain && place.partial == Partial{});
  if (!whole) return;
  Ascii set;
  for (const Move& move : place.algebra->live_moves(place.expression)) {
    const Ascii covered = range(move.low, move.high);
    for (int word = 0; word < 2; ++word) set.words[word] |= covered.words[word];
  }
  for (int word = 0; word < 2; ++word) set.words[word] &= ordinary(place.mode).words[word];
  set = alike(place.algebra->live_moves(place.expression), set);
  if (place.watch >= 0) {
    const Watch& watch = watches_[std::size_t(place.watch)];
    if (watch.captured != kNothing) return;
    set = alike(watch.algebra->moves(watch.texts), set);
    for (int expression : watch.classes) set = alike(watch.algebra->moves(expression), set);
  }
  if (set.count() == 0) return;
  const std::uint64_t leads = leads_alike(place, set.first());
  const int target = step(index, std::uint8_t(set.first()));
  states_[std::size_t(index)]->run = {{set.words[0], set.words[1]}, leads, target};
}

}  // namespace octavo::grammar
