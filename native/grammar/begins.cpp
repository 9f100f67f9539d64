// Which bytes may lead on from a place, found without following any: a walk of the vocabulary's trie passes over all
// others, and a fresh state need not be asked about each of 256.
#include <algorithm>

#include "grammar/automaton.h"

namespace octavo::grammar {

namespace {

void add_characters(const Moves& moves, bool in_string, ByteSet& bytes) {
  for (const Move& move : moves) {
    for (std::uint32_t code = move.low; code <= std::min(move.high, 0x7Fu); ++code)
      if (!in_string || (code >= 0x20 && code != '"' && code != '\\')) bytes.add(std::uint8_t(code));
    if (move.high < 0x80) continue;
    const auto first = std::uint8_t(utf8(std::max(move.low, 0x80u))[0]);
    bytes.add(first, std::uint8_t(utf8(move.high)[0]));
  }
}

}  // namespace

ByteSet text_begins(const TextPlace& place) {
  ByteSet bytes;
  switch (place.mode) {
    case Mode::closed: break;
    case Mode::before: bytes.add('"'); break;
    case Mode::body:
      add_characters(place.algebra->live_moves(place.expression), true, bytes);
      bytes.add('"');
      bytes.add('\\');
      break;
    case Mode::plain:
      if (place.partial == Partial{}) {
        add_characters(place.algebra->live_moves(place.expression), false, bytes);
        break;
      }
      [[fallthrough]];
    case Mode::utf8: bytes.add(0x80, 0xBF); break;
    default: bytes.add(0x20, 0x7F); break;  // within an escape
  }
  return bytes;
}

const ByteSet& Automaton::position_begins(int index) {
  Position& position = expand(index);
  if (position.begins) return *position.begins;
  auto found = std::make_unique<ByteSet>();
  if (position.kind == Position::Kind::text) {
    *found = text_begins(position.text);
  } else if (position.outline->stepped) {
    found->add(0, 255);
  } else {
    const Outline& outline = *position.outline;
    for (const auto& [byte, target] : outline.moves) found->add(byte);
    if (position.space == 0)
      for (const auto& [byte, target] : outline.tight) found->add(byte);
    for (std::uint8_t byte : {' ', '\n', '\t'})
      if (next_space(outline.layout, position.space, byte) >= 0) found->add(byte);
  }
  Position& here = *positions_[std::size_t(index)];
  here.begins = std::move(found);
  return *here.begins;
}

const ByteSet& Automaton::find_begins(int index) {
  State& state = *states_[std::size_t(index)];
  if (state.pairs.size() == 1) return *(state.begins = &position_begins(state.pairs[0].position));
  auto all = std::make_unique<ByteSet>();
  for (const Pair& pair : state.pairs) all->add(position_begins(pair.position));
  state.all_begins = std::move(all);
  return *(state.begins = state.all_begins.get());
}

}  // namespace octavo::grammar
