#include "grammar/automaton.h"

#include <algorithm>
#include <string>

#include "grammar/closure.h"
#include "grammar/errors.h"
#include "grammar/work.h"

namespace octavo::grammar {

namespace {

const std::vector<Call> kNoCalls;

}  // namespace

int Automaton::intern(const Content& key, Position position) {
  const auto [place, is_new] = position_ids_.try_emplace(key, int(positions_.size()));
  if (!is_new) return place->second;
  if (positions_.size() >= limits_.max_positions) {
    position_ids_.erase(place);
    throw TooComplex("the grammar reached " + std::to_string(limits_.max_positions) + " positions, its limit");
  }
  positions_.push_back(std::make_unique<Position>(std::move(position)));
  return int(positions_.size()) - 1;
}

int Automaton::object(int object, int space) {
  const Content content = ContentBuilder(203).add(unique_).add(std::uint64_t(object)).add(std::uint64_t(space)).done();
  Position made;
  made.kind = Position::Kind::spaced;
  made.object = object;
  made.space = space;
  made.content = content;
  return intern(content, std::move(made));
}

Position& Automaton::expand(int index) {
  Position& position = *positions_[std::size_t(index)];
  if (position.expanded) return position;
  if (position.kind == Position::Kind::text) {
    if (text_ends(position.text)) position.ending = label_of(position.text);
    position.silent = position.text.mode == Mode::closed ||
                      (position.text.mode == Mode::plain && position.text.partial == Partial{} &&
                       position.text.algebra->live_moves(position.text.expression).empty());
  } else {
    if (position.space == 0) {
      Allowance::spend(kNetworkCost);
      position.outline = std::make_shared<const Outline>(network_.outline(position.object));
    } else {
      position.outline = expand(this->object(position.object)).outline;
    }
    position.ending = position.outline->ending;
    position.silent = position.outline->silent;
  }
  position.expanded = true;
  return position;
}

const std::vector<Call>& Automaton::calls(const Position& position) const {
  return position.outline ? position.outline->calls : kNoCalls;
}

int Automaton::step_uncached(int index, std::uint8_t byte) {
  const Position& position = expand(index);
  if (position.kind == Position::Kind::text) {
    TextPlace place = position.text;
    std::uint32_t code_point = 0;
    switch (step_text(place, byte, code_point)) {
      case TextStep::dead: return kDead;
      case TextStep::place: return text(place);
      case TextStep::character: return after_character(position.text, code_point);
    }
  }
  const Outline& outline = *position.outline;
  if (outline.stepped) {
    Allowance::spend(kNetworkCost);
    return network_.step(position.object, byte);
  }
  if (position.space == 0) {
    for (const auto& [value, target] : outline.tight)
      if (value == byte) return target;
  }
  for (const auto& [value, target] : outline.moves)
    if (value == byte) return target;
  const int space = next_space(outline.layout, position.space, byte);
  return space < 0 ? kDead : object(position.object, space);
}

int Automaton::step_position(int index, std::uint8_t byte) {
  Position& position = *positions_[std::size_t(index)];
  if (!position.steps) position.steps = tables_.make(kUnknown);
  int found = (*position.steps)[byte];
  if (found == kUnknown) {
    found = step_uncached(index, byte);
    (*position.steps)[byte] = found;
    if (position.kind == Position::Kind::text) fill_alike(position, byte, found);
  }
  return found;
}

// The bytes that lead where `byte` leads, because one interval of characters has them all.
void Automaton::fill_alike(Position& position, std::uint8_t byte, int target) {
  const TextPlace& place = position.text;
  const bool whole = place.mode == Mode::body || (place.mode == Mode::plain && place.partial == Partial{});
  if (!whole || (byte >= 0x80 && (byte < 0xC2 || target < 0))) return;
  const auto special = [&](int value) {
    return place.mode == Mode::body && (value < 0x20 || value == '"' || value == '\\');
  };
  if (special(byte)) return;
  std::uint32_t low = byte, high = byte;
  int bits = 0;
  if (byte >= 0x80) {  // only where it does not matter which character begins
    Partial own;
    begin_utf8(byte, own);
    bits = 6 * own.left;
    low = own.low;
    high = own.high;
    if (high - low != (1u << bits) - 1) return;
  }
  Interval alike{0, 0x10FFFF};
  const auto narrow = [&](const Moves& moves) {
    std::uint32_t from = 0;
    for (const Move& move : moves) {
      if (move.low > high) {
        alike = {std::max(alike.low, from), std::min(alike.high, move.low - 1)};
        return;
      }
      if (move.high >= low) {
        alike = {std::max(alike.low, move.low), std::min(alike.high, move.high)};
        return;
      }
      from = move.high + 1;
    }
    alike.low = std::max(alike.low, from);
  };
  narrow(place.algebra->live_moves(place.expression));
  if (place.watch >= 0) {
    const Watch& watch = watches_[std::size_t(place.watch)];
    if (watch.captured >= 0) return;
    narrow(place.algebra->moves(watch.texts));
    for (int expression : watch.classes) narrow(place.algebra->moves(expression));
  }
  if (alike.low > low || alike.high < high) return;  // several intervals within one first byte
  for (int other = byte < 0x80 ? 0 : 0xC2; other < (byte < 0x80 ? 0x80 : 0xF5); ++other) {
    Partial begun{std::uint32_t(other), std::uint32_t(other), 0};
    if (other >= 0x80) {
      begin_utf8(std::uint8_t(other), begun);
      if (6 * begun.left != bits || begun.high - begun.low != (1u << bits) - 1) continue;
    } else if (special(other)) {
      continue;
    }
    if (alike.low <= begun.low && begun.high <= alike.high) (*position.steps)[std::size_t(other)] = target;
  }
}

int Automaton::step_slowly(int index, std::uint8_t byte) {
  State& state = *states_[std::size_t(index)];
  if (!state.moves) state.moves = tables_.make(kUnknown);
  Allowance::spend(kPairCost * std::int64_t(state.pairs.size()));
  std::vector<Pair> after;
  for (const Pair& pair : state.pairs) {
    const int target = step_position(pair.position, byte);
    if (target >= 0) after.push_back({target, pair.continuation});
  }
  const int found = after.empty() ? kDead : close(after);
  ByteTable& moves = *state.moves;
  moves[byte] = found;
  if (state.pairs.size() == 1) {  // bytes that its position does not tell apart
    const ByteTable& steps = *positions_[std::size_t(state.pairs[0].position)]->steps;
    const int target = steps[byte];
    for (std::size_t other = 0; other < 256; ++other) moves[other] = steps[other] == target ? found : moves[other];
  }
  return found;
}

int Automaton::only_byte(int index) {
  State& state = *states_[std::size_t(index)];
  if (state.only == kUnknown) {
    int live = -1;
    const ByteSet& likely = begins(index);
    for (int byte = 0; byte < 256; ++byte) {
      if (!likely.has(std::uint8_t(byte)) || step(index, std::uint8_t(byte)) == kDead) continue;
      if (live >= 0) {
        live = -1;
        break;
      }
      live = byte;
    }
    state.only = live;
  }
  return state.only;
}

int Automaton::resume(int returning, int label) {
  const std::uint64_t key = std::uint64_t(std::uint32_t(returning)) << 32 | std::uint32_t(label);
  const auto found = resumed_.find(key);
  if (found != resumed_.end()) return found->second;
  Allowance::spend(kNetworkCost);
  const int target = network_.resume(returning, label);
  resumed_[key] = target;
  return target;
}

void Automaton::pop(int continuation, int label, std::vector<Pair>& after) {
  for (std::size_t i = 0; i < frames_[std::size_t(continuation)].size(); ++i) {
    const Frame frame = frames_[std::size_t(continuation)][i];
    const int target = resume(frame.returning, label);
    if (target >= 0) after.push_back({target, frame.continuation});
  }
}

int Automaton::continuation(std::vector<Frame> frames) {
  std::sort(frames.begin(), frames.end());
  frames.erase(std::unique(frames.begin(), frames.end()), frames.end());
  ContentBuilder content(204);
  for (const Frame& frame : frames)
    content.add(std::uint64_t(std::uint32_t(frame.returning)) << 32 | std::uint32_t(frame.continuation));
  const auto known = frame_ids_.find(content.done());
  if (known != frame_ids_.end()) return known->second;
  int depth = 0;
  for (const Frame& frame : frames) depth = std::max(depth, depths_[std::size_t(frame.continuation)] + 1);
  if (depth > limits_.max_depth)
    throw TooComplex("the text nests over " + std::to_string(limits_.max_depth) + " rules deep");
  const int made = int(frames_.size());
  frame_ids_[content.done()] = made;
  frames_.push_back(std::move(frames));
  depths_.push_back(depth);
  return made;
}

int Automaton::intern_state(std::vector<Pair> pairs, std::vector<int> endings) {
  if (pairs.empty() && endings.empty()) return kDead;
  ContentBuilder content(205);
  for (const Pair& pair : pairs)
    content.add(std::uint64_t(std::uint32_t(pair.position)) << 32 | std::uint32_t(pair.continuation));
  content.add(pairs.size());
  for (int label : endings) content.add(std::uint64_t(label));
  const auto [place, is_new] = state_ids_.try_emplace(content.done(), int(states_.size()));
  if (!is_new) return place->second;
  if (states_.size() >= limits_.max_states) {
    state_ids_.erase(place);
    throw TooComplex("the grammar reached " + std::to_string(limits_.max_states) + " states, its limit");
  }
  states_.push_back(std::make_unique<State>());
  if (pairs.size() == 1 && endings.empty() && pairs[0].continuation == kRoot) {
    states_.back()->free = position(pairs[0].position).free;
    states_.back()->lasting = position(pairs[0].position).lasting;
  }
  for (const Pair& pair : pairs) states_.back()->has_text |= position(pair.position).kind == Position::Kind::text;
  states_.back()->pairs = std::move(pairs);
  states_.back()->endings = std::move(endings);
  return int(states_.size()) - 1;
}

int Automaton::close(const std::vector<Pair>& pairs) {
  if (pairs.size() == 1) {  // the common case needs no closure: one place that neither ends nor calls
    const Position& position = expand(pairs[0].position);
    if (!position.silent && position.ending == kNoLabel && calls(position).empty()) return intern_state(pairs, {});
  }
  Closure closure(*this);
  auto [kernel, endings] = closure.run(pairs);
  return intern_state(std::move(kernel), std::move(endings));
}

int Automaton::state_of_calls(int position) {
  const State& whole = state(state_of(position));
  std::vector<Pair> pairs = whole.pairs;
  std::erase(pairs, Pair{position, kRoot});
  return intern_state(std::move(pairs), whole.endings);
}

}  // namespace octavo::grammar
