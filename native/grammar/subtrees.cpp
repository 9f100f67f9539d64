// Subtrees of the vocabulary's trie whose tokens all stay inside a rule: they are taken whole.
#include "grammar/masks.h"

namespace octavo::grammar {

namespace {

constexpr std::uint32_t kFewNodes = 16;  // of a subtree that is walked sooner than looked through

}  // namespace

void add_range(std::vector<Range>& ranges, const Range& range) {
  if (!ranges.empty() && ranges.back().last == range.first) ranges.back().last = range.last;
  else ranges.push_back(range);
}

// Whether a state where the string has no conditions left ends with the label of the others.
bool MaskMaker::as_reference(int state, Found& found) const {
  const int label = automaton_.position(automaton_.state(state).pairs[0].position).text.label;
  if (found.has_reference_label && found.reference_label != label) return false;
  found.has_reference_label = true;
  found.reference_label = label;
  return true;
}

// Every byte below leads the state back to itself.
bool MaskMaker::stays(int state, const BytesBelow& below) const {
  const Loop* loop = automaton_.loop(state);
  if (!loop || (below.ascii[0] & ~loop->ascii[0]) != 0 || (below.ascii[1] & ~loop->ascii[1]) != 0) return false;
  return !below.others || (below.utf8 && (below.leads & ~loop->leads) == 0);
}

// Whether tokens of a subtree, its first byte included, stay in a string where so many characters may come, whichever.
bool MaskMaker::goes_on(int lasting, std::uint32_t node) const {
  const TrieNode here = vocabulary_->trie().node(node);
  if (here.byte == '"' || (vocabulary_->trie().below(node).ascii[0] >> '"' & 1)) return false;
  return lasting == kEndless || (here.characters != UINT8_MAX && lasting > here.characters);
}

// Every byte below leads on, and it does not matter which it is, as often as characters come.
bool MaskMaker::runs_on(int state, std::uint32_t node) const {
  const TrieNode here = vocabulary_->trie().node(node);
  const BytesBelow& below = vocabulary_->trie().below(node);
  if (here.end - node < kFewNodes || (below.others && !below.utf8) || here.characters == UINT8_MAX) return false;
  const Run begun = automaton_.run(state);
  if (begun.target == kDead) return false;
  if (begun.within) state = begun.target;
  for (int left = here.characters;; --left) {
    if (!automaton_.state(state).endings.empty()) return false;
    if (left == 0) return true;
    const Run& run = automaton_.run(state);
    if (run.target == kDead || run.within || (below.ascii[0] & ~run.ascii[0]) != 0 ||
        (below.ascii[1] & ~run.ascii[1]) != 0 || (below.leads & ~run.leads) != 0)
      return false;
    if (run.target == state) return true;
    state = run.target;
  }
}

bool MaskMaker::take_whole(std::uint32_t node, int target, bool with_reference, Found& found) {
  const Trie& trie = vocabulary_->trie();
  const TrieNode here = trie.node(node);
  const State& state = automaton_.state(target);
  const Range range{here.first, trie.last(node)};
  if (with_reference && state.free > 0 && state.free >= here.characters && as_reference(target, found)) {
    add_range(found.as_reference, range);
    return true;
  }
  const bool whole = here.end > node + 1 && state.endings.empty() && stays(target, trie.below(node));
  if (!whole && !runs_on(target, node)) return false;
  if (with_reference) {  // an unconditional string goes on there too, and does not end
    add_range(found.as_reference, range);
  } else {
    const auto begin = trie.order().begin();
    found.tokens.insert(found.tokens.end(), begin + range.first, begin + range.last);
  }
  return true;
}

}  // namespace octavo::grammar
