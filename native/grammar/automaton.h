// The lazy pushdown automaton over a network: the fast twin of octavo/grammar/engine/automaton.py, which explains it.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "grammar/positions.h"
#include "grammar/tables.h"

namespace octavo::grammar {

constexpr int kEndless = 1 << 30;
constexpr int kRoot = 0;  // the continuation of the whole text

struct Limits {
  std::size_t max_states, max_positions, max_pairs;
  int max_depth;
};

struct Pair {
  int position, continuation;
  auto operator<=>(const Pair&) const = default;
};

struct Frame {
  int returning, continuation;
  auto operator<=>(const Frame&) const = default;
};

struct Position {
  enum class Kind : std::uint8_t { text, spaced } kind = Kind::text;
  bool silent = false, expanded = false;
  int ending = kNoLabel;
  TextPlace text;
  int object = -1, space = 0;  // for the others: Python's object, and the white space read in it
  std::shared_ptr<const Outline> outline;
  ByteTable* steps = nullptr;
  Content content;  // of the language, without the label of a text
  // In the body of a string with no further condition: how many characters may still come (0: there are conditions).
  int free = 0;
  // In the body of a string: how many characters may still come, whichever they are, if it need not end in between.
  int lasting = 0;
  std::unique_ptr<ByteSet> begins;  // of `Automaton::begins`
};

// Characters that lead a state back to itself: ASCII, and those that begin with a byte from 0xC0 on.
struct Loop {
  std::uint64_t ascii[2] = {0, 0}, leads = 0;
};

// Characters that all lead to one state: ASCII, and those that begin with a byte from 0xC0 on.  Within a character: what
// any end of it leads to.
struct Run {
  std::uint64_t ascii[2] = {0, 0}, leads = 0;
  int target = kDead;
  bool within = false;
};

struct State {
  std::vector<Pair> pairs;
  std::vector<int> endings;
  ByteTable* moves = nullptr;
  int only = kUnknown;
  int free = 0, lasting = 0;  // as of its position, where that is alone and has no caller
  bool loop_known = false;
  std::unique_ptr<Loop> loop;
  bool run_known = false;
  Run run;
  const ByteSet* begins = nullptr;     // its position's, where that is alone, else `all_begins`
  std::unique_ptr<ByteSet> all_begins;
  bool has_text = false;  // some of its positions are in a text
};

class Automaton {
 public:
  Automaton(Network& network, const Limits& limits, std::shared_ptr<TablePool> pool)
      : network_(network), limits_(limits), tables_(std::move(pool)) {
    frames_.emplace_back();
    depths_.push_back(0);
  }

  int text(TextPlace place);
  int object(int object, int space = 0);
  int watch(Watch watch);
  int capture(const std::u32string& text);
  bool captures(const Position& position) const {
    return position.text.watch >= 0 && watches_[std::size_t(position.text.watch)].captured >= 0;
  }
  // The same position of a text that is equal to no other.
  int without_capture(const Position& position);

  const Position& position(int index) const { return *positions_[std::size_t(index)]; }
  const State& state(int index) const { return *states_[std::size_t(index)]; }
  std::size_t states() const { return states_.size(); }
  std::size_t positions() const { return positions_.size(); }

  int step(int state, std::uint8_t byte) {
    const ByteTable* moves = states_[std::size_t(state)]->moves;
    const int found = moves ? (*moves)[byte] : kUnknown;
    return found != kUnknown ? found : step_slowly(state, byte);
  }
  int step_position(int position, std::uint8_t byte);
  const Loop* loop(int state) {
    State& here = *states_[std::size_t(state)];
    if (!here.loop_known) find_loop(here);
    return here.loop.get();
  }
  // Every byte that may lead on from a state, and few others.
  const ByteSet& begins(int state) {
    const ByteSet* known = states_[std::size_t(state)]->begins;
    return known ? *known : find_begins(state);
  }
  // The largest such set in a text; none where `target` is kDead.
  const Run& run(int state) {
    State& here = *states_[std::size_t(state)];
    if (!here.run_known) find_run(state);
    return here.run;
  }
  int close(const std::vector<Pair>& pairs);
  int state_of(int position) { return close({{position, kRoot}}); }
  // A position without what it calls or where it ends: only the bytes that it takes itself.
  int state_without_calls(int position) { return intern_state({{position, kRoot}}, {}); }
  // And the other way round: what it calls and where it ends, without the bytes that it takes itself.
  int state_of_calls(int position);
  void pop(int continuation, int label, std::vector<Pair>& after);
  int only_byte(int state);  // the byte that must come next, or -1
  Position& expand(int position);
  int resume(int returning, int label);
  const std::vector<Call>& calls(const Position& position) const;
  Network& network() { return network_; }
  const Limits& limits() const { return limits_; }
  std::size_t bytes() const { return tables_.bytes() + states_.size() * 160 + positions_.size() * 256; }

 private:
  friend class Closure;
  void find_loop(State& state);
  void find_run(int state);
  bool any_end(const TextPlace& place) const;
  std::uint64_t leads_alike(const TextPlace& place, std::uint32_t code) const;
  const ByteSet& find_begins(int state);
  const ByteSet& position_begins(int position);
  void fill_alike(Position& position, std::uint8_t byte, int target);
  int step_slowly(int state, std::uint8_t byte);
  int step_uncached(int position, std::uint8_t byte);
  int after_character(TextPlace place, std::uint32_t code_point);
  int label_of(const TextPlace& place);
  void simplify(TextPlace& place);
  int continuation(std::vector<Frame> frames);
  int intern(const Content& key, Position position);
  int intern_state(std::vector<Pair> pairs, std::vector<int> endings);

  Network& network_;
  Limits limits_;
  Tables tables_;
  std::vector<std::unique_ptr<Position>> positions_;
  std::unordered_map<Content, int, ContentHash> position_ids_, state_ids_, frame_ids_, watch_ids_;
  std::vector<std::vector<Frame>> frames_;  // by continuation
  std::vector<int> depths_;
  std::vector<std::unique_ptr<State>> states_;
  std::vector<Watch> watches_;
  std::vector<std::u32string> captured_;
  std::unordered_map<std::u32string, int> captured_ids_;
  std::unordered_map<std::uint64_t, int> resumed_;
  std::map<std::array<std::uint32_t, 3>, int> labels_;  // by labeler, text and classes
  std::uint64_t unique_ = unique_number();
};

}  // namespace octavo::grammar
