// White space between the parts of a document, which does the same to the tokens at every place of one layout: it is
// walked once for a vocabulary, and each place adds only where its other bytes lead.
#include "grammar/masks.h"

namespace octavo::grammar {

namespace {

constexpr std::uint8_t kSpaceBytes[] = {' ', '\t', '\n'};

Spaces find_spaces(const Trie& trie, int layout, int start) {
  struct Open {
    Spaces::Node place;
    int space;
  };
  Spaces found;
  std::vector<Open> work{{{0, 0}, start}};
  while (!work.empty()) {
    const auto [place, space] = work.back();
    work.pop_back();
    std::uint32_t others = trie.children(place.node + 1) - trie.children(place.node);
    for (std::uint8_t byte : kSpaceBytes) {
      const std::uint32_t node = trie.child_by(place.node, byte);
      others -= node != 0;
      const int after = node == 0 ? -1 : next_space(layout, space, byte);
      if (after < 0) continue;
      const TrieNode here = trie.node(node);
      for (std::uint32_t own = 0; own < here.own; ++own) found.tokens.push_back(trie.order()[here.first + own]);
      work.push_back({{node, place.depth + 1}, after});
    }
    if (others > 0 || found.nodes.empty()) found.nodes.push_back(place);
  }
  return found;
}

bool spaces_alone(const Outline& outline) {
  if (outline.stepped || outline.layout == 0) return false;
  ByteSet taken;
  for (std::uint8_t byte : kSpaceBytes) taken.add(byte);
  for (const auto* moves : {&outline.moves, &outline.tight})
    for (const auto& [byte, target] : *moves) {
      if (taken.has(byte)) return false;
      taken.add(byte);
    }
  return true;
}

}  // namespace

std::shared_ptr<const Spaces> InsideCache::spaces(const Vocabulary& vocabulary, int layout, int space) {
  const std::lock_guard lock(mutex_);
  std::shared_ptr<const Spaces>& known = spaces_[{layout, space}];
  if (!known) known = std::make_shared<const Spaces>(find_spaces(vocabulary.trie(), layout, space));
  return known;
}

bool MaskMaker::walk_spaces(int index, Found& found) {
  const Position& position = automaton_.position(index);
  const Outline& outline = *position.outline;
  if (!spaces_alone(outline)) return false;
  const int calls = automaton_.state_of_calls(index);
  if (calls != kDead && !automaton_.state(calls).endings.empty()) return false;
  const std::shared_ptr<const Spaces> spaces = shared_->spaces(*vocabulary_, outline.layout, position.space);
  found.tokens = spaces->tokens;
  const auto go = [&](const Spaces::Node& above, std::uint8_t byte, int after) {
    const std::uint32_t node = vocabulary_->trie().child_by(above.node, byte);
    const int target = node == 0 ? kDead : automaton_.state_of(after), depth = above.depth + 1;
    if (target != kDead && arrive(node, target, depth, false, found)) walk_inside(node, depth, target, false, found);
  };
  if (position.space == 0)
    for (const auto& [byte, target] : outline.tight) go(spaces->nodes[0], byte, target);
  for (const Spaces::Node& above : spaces->nodes) {
    for (const auto& [byte, target] : outline.moves) go(above, byte, target);
    if (above.depth > 0 && calls != kDead) walk_inside(above.node, above.depth, calls, false, found);
  }
  return true;
}

}  // namespace octavo::grammar
