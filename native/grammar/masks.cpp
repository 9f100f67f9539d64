#include "grammar/masks.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "grammar/errors.h"
#include "grammar/work.h"

namespace octavo::grammar {

namespace {

constexpr std::size_t kSparse = 1024;    // tokens up to which a list is kept rather than bits
constexpr std::size_t kManyHoles = 20'000;
constexpr std::size_t kFewHoles = 4;
constexpr std::uint32_t kVisitsAtOnce = 1024;  // nodes of a walk between two looks at the allowance

void set(Bits& bits, std::int32_t token) { bits[std::size_t(token) / 32] |= 1u << (token % 32); }
void drop(Bits& bits, std::int32_t token) { bits[std::size_t(token) / 32] &= ~(1u << (token % 32)); }
bool has(const Bits& bits, std::int32_t token) { return bits[std::size_t(token) / 32] >> (token % 32) & 1; }

bool within(const std::vector<Range>& ranges, std::uint32_t place) {
  const auto after = std::upper_bound(ranges.begin(), ranges.end(), place,
                                      [](std::uint32_t value, const Range& range) { return value < range.first; });
  return after != ranges.begin() && place < (after - 1)->last;
}

}  // namespace

std::size_t Inside::bytes() const {
  constexpr std::size_t kEntry = 256;  // in the cache's list and table, and what the allocator adds
  std::size_t total = kEntry + sizeof(Inside) + 4 * (clear.capacity() + tokens.capacity());
  total += sizeof(Range) * as_reference.capacity();
  if (bits && (!reference || bits != reference->bits)) total += 4 * bits->capacity();
  for (const Exit& exit : exits) total += sizeof(Exit) + (exit.suffixes ? exit.suffixes->bytes() : 0);
  return total;
}

std::shared_ptr<const Inside> InsideCache::find(const Content& content) {
  const std::lock_guard lock(mutex_);
  const auto place = places_.find(content);
  if (place == places_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, place->second);
  return place->second->inside;
}

void InsideCache::store(const Content& content, std::shared_ptr<const Inside> inside) {
  const std::lock_guard lock(mutex_);
  if (places_.contains(content)) return;
  bytes_ += inside->bytes();
  entries_.push_front({content, std::move(inside)});
  places_[content] = entries_.begin();
  while (bytes_ > budget_ && entries_.size() > 1) {
    bytes_ -= entries_.back().inside->bytes();
    places_.erase(entries_.back().content);
    entries_.pop_back();
  }
}

void Mask::fill(std::uint32_t* words, std::size_t count) const {
  const Bits* start = bits ? bits.get() : inside ? inside->bits.get() : nullptr;
  if (start) std::memcpy(words, start->data(), count * sizeof *words);
  else std::memset(words, 0, count * sizeof *words);
  if (bits) return;
  if (inside) {
    for (std::int32_t token : inside->clear) words[token / 32] &= ~(1u << (token % 32));
    for (std::int32_t token : inside->tokens) words[token / 32] |= 1u << (token % 32);
  }
  for (std::int32_t token : tokens) words[token / 32] |= 1u << (token % 32);
}

// Notes what a token is that leads to `target` at a node `depth` bytes down; whether the walk goes on below.
bool MaskMaker::arrive(std::uint32_t node, int target, int depth, bool with_reference, Found& found) {
  if (take_whole(node, target, with_reference, found)) return false;
  const Trie& trie = vocabulary_->trie();
  const TrieNode here = trie.node(node);
  const State& state = automaton_.state(target);
  if (!state.pairs.empty())
    for (std::uint32_t place = 0; place < here.own; ++place) found.tokens.push_back(trie.order()[here.first + place]);
  for (int label : state.endings) found.holes.push_back({node, label, depth});
  found.too_many = found.holes.size() > kManyHoles;
  return !state.pairs.empty() && here.end > node + 1;
}

void MaskMaker::walk_inside(std::uint32_t root, int depth, int start, bool with_reference, Found& found) {
  const Trie& trie = vocabulary_->trie();
  struct Open {
    std::uint32_t place, end;  // of the nodes below that are still to come
    std::uint32_t last;        // in the order of tokens, of all below
    int state, lasting;
    const ByteSet* begins;
  };
  const auto open = [&](std::uint32_t node, int state) {
    return Open{trie.children(node), trie.children(node + 1), trie.last(node), state,
                with_reference ? automaton_.state(state).lasting : 0, &automaton_.begins(state)};
  };
  std::vector<Open> path{open(root, start)};
  for (std::uint32_t visited = 1; !path.empty() && !found.too_many;) {
    Open& above = path.back();
    while (above.place < above.end && !above.begins->has(trie.child_byte(above.place))) ++above.place;
    if (above.place == above.end) {
      path.pop_back();
      continue;
    }
    if (++visited % kVisitsAtOnce == 0) Allowance::spend(kVisitsAtOnce);
    const std::uint32_t node = trie.child(above.place++);
    const TrieNode here = trie.node(node);
    if (above.lasting > 0 && goes_on(above.lasting, node)) {  // nothing ends there, so it goes on as anywhere
      add_range(found.as_reference, {here.first, trie.last(node)});
      continue;
    }
    const int target = automaton_.step(above.state, here.byte);
    if (target == kDead) continue;
    const State& state = automaton_.state(target);
    if (with_reference && state.free == kEndless && as_reference(target, found)) {  // and all beside it that go there
      const ByteTable& moves = *automaton_.state(above.state).moves;
      while (above.place < above.end && moves[trie.child_byte(above.place)] == target) ++above.place;
      const std::uint32_t last = above.place < above.end ? trie.first(trie.child(above.place)) : above.last;
      add_range(found.as_reference, {here.first, last});
      continue;
    }
    if (arrive(node, target, depth + int(path.size()), with_reference, found)) path.push_back(open(node, target));
  }
}

void MaskMaker::walk(const Trie& trie, std::uint32_t root, int start, std::vector<std::int32_t>& tokens,
                     std::vector<std::int32_t>* doubtful) {
  struct Open {
    std::uint32_t place, end;  // of the nodes below that are still to come
    int state;
    bool in_doubt;
    const ByteSet* begins;
  };
  const auto open = [&](std::uint32_t node, int state, bool in_doubt) {
    return Open{trie.children(node), trie.children(node + 1), state, in_doubt, &automaton_.begins(state)};
  };
  std::vector<Open> path{open(root, start, doubtful && automaton_.state(start).has_text)};
  const auto take = [&](const TrieNode& node, bool in_doubt) {
    std::vector<std::int32_t>& list = in_doubt ? *doubtful : tokens;
    for (std::uint32_t place = 0; place < node.own; ++place) list.push_back(trie.order()[node.first + place]);
  };
  take(trie.node(root), path[0].in_doubt);
  for (std::uint32_t visited = 1; !path.empty();) {
    Open& above = path.back();
    while (above.place < above.end && !above.begins->has(trie.child_byte(above.place))) ++above.place;
    if (above.place == above.end) {
      path.pop_back();
      continue;
    }
    if (++visited % kVisitsAtOnce == 0) Allowance::spend(kVisitsAtOnce);
    const std::uint32_t node = trie.child(above.place++);
    const TrieNode here = trie.node(node);
    const int target = automaton_.step(above.state, here.byte);
    if (target == kDead) continue;
    const bool in_doubt = doubtful && (above.in_doubt || automaton_.state(target).has_text);
    if (here.end > node + 1 && !in_doubt && stays(target, trie.below(node))) {
      const auto begin = trie.order().begin();
      tokens.insert(tokens.end(), begin + here.first, begin + trie.last(node));
      continue;
    }
    take(here, in_doubt);
    if (here.end > node + 1) path.push_back(open(node, target, in_doubt));
  }
}

bool MaskMaker::allowed(const Pair& pair, std::int32_t token) {
  Allowance::spend(kPairCost);
  int state = automaton_.close({pair});
  for (char byte : vocabulary_->token(token)) {
    if (state == kDead) break;
    state = automaton_.step(state, std::uint8_t(byte));
  }
  return state != kDead;
}

std::shared_ptr<const Inside> MaskMaker::inside(int position) {
  if (std::size_t(position) >= insides_.size()) insides_.resize(automaton_.positions());
  if (insides_[std::size_t(position)]) return insides_[std::size_t(position)];
  const Content content = automaton_.position(position).content;
  // What a watch or Python knows belongs to this grammar and dies with it.
  const Position& here = automaton_.position(position);
  if (here.kind == Position::Kind::text && automaton_.captures(here)) {
    const std::shared_ptr<const Inside> found = inside(automaton_.without_capture(here));
    if (std::size_t(position) >= insides_.size()) insides_.resize(automaton_.positions());
    return insides_[std::size_t(position)] = found;
  }
  const bool shares = here.kind == Position::Kind::text && here.text.watch < 0;
  std::shared_ptr<const Inside> found = shares ? shared_->find(content) : nullptr;
  if (!found) {
    found = make_inside(position);
    if (shares) shared_->store(content, found);
    else bytes_ += found->bytes();
  }
  if (std::size_t(position) >= insides_.size()) insides_.resize(automaton_.positions());
  insides_[std::size_t(position)] = found;
  return found;
}

std::shared_ptr<const Inside> MaskMaker::make_inside(int index) {
  const Position& position = automaton_.expand(index);
  const bool is_text = position.kind == Position::Kind::text;
  const bool own_label = is_text && position.text.watch < 0;
  std::shared_ptr<const Inside> reference;
  if (is_text && position.text.mode == Mode::body && position.free != kEndless) {
    TextPlace place = position.text;
    place.expression = place.algebra->anything;
    place.watch = -1;
    place.label = 0;
    reference = inside(automaton_.text(place));
  }
  Found found;
  if (is_text || !walk_spaces(index, found))
    walk_inside(0, 0, automaton_.state_without_calls(index), reference != nullptr, found);
  auto made = std::make_shared<Inside>();
  made->factored = !found.too_many;
  if (found.too_many) return made;
  made->tokens = std::move(found.tokens);
  add_exits(found, own_label, *made);
  const Trie& trie = vocabulary_->trie();
  if (!found.as_reference.empty()) {
    std::size_t kept = 0;
    for (const Range& range : found.as_reference) kept += range.last - range.first;
    made->reference = reference;
    made->ends_as_reference = found.has_reference_label;
    made->reference_label = own_label ? kOwnLabel : found.reference_label;
    made->as_reference = std::move(found.as_reference);
    if (kept * 2 > trie.order().size()) {
      made->bits = reference->bits;
      std::uint32_t from = 0;
      for (const Range& range : made->as_reference) {
        for (; from < range.first; ++from)
          if (has(*reference->bits, trie.order()[from])) made->clear.push_back(trie.order()[from]);
        from = range.last;
      }
      for (; from < trie.order().size(); ++from)
        if (has(*reference->bits, trie.order()[from])) made->clear.push_back(trie.order()[from]);
    } else {
      made->tokens.reserve(made->tokens.size() + kept);
      for (const Range& range : made->as_reference)
        for (std::uint32_t place = range.first; place < range.last; ++place)
          if (has(*reference->bits, trie.order()[place])) made->tokens.push_back(trie.order()[place]);
    }
  }
  if (made->clear.size() > kSparse || made->tokens.size() > kSparse || (is_text && position.free == kEndless)) {
    auto bits = made->bits ? std::make_shared<Bits>(*made->bits) : std::make_shared<Bits>(vocabulary_->words());
    for (std::int32_t token : made->clear) drop(*bits, token);
    for (std::int32_t token : made->tokens) set(*bits, token);
    made->bits = std::move(bits);
    made->clear.clear();
    made->tokens.clear();
  }
  made->tokens.shrink_to_fit();
  made->clear.shrink_to_fit();
  made->as_reference.shrink_to_fit();
  made->exits.shrink_to_fit();
  return made;
}

void MaskMaker::add_exits(const Found& found, bool own_label, Inside& inside) {
  const Trie& trie = vocabulary_->trie();
  std::map<int, std::vector<const Found::Hole*>> by_label;
  for (const Found::Hole& hole : found.holes) by_label[own_label ? kOwnLabel : hole.label].push_back(&hole);
  for (const auto& [label, holes] : by_label) {
    if (holes.size() <= kFewHoles) {
      for (const Found::Hole* hole : holes) inside.exits.push_back({label, hole->node, nullptr});
      continue;
    }
    std::vector<std::pair<std::string_view, std::int32_t>> suffixes;
    for (const Found::Hole* hole : holes)
      for (std::uint32_t place = trie.first(hole->node); place < trie.last(hole->node); ++place) {
        const std::int32_t token = trie.order()[place];
        suffixes.emplace_back(vocabulary_->token(token).substr(std::size_t(hole->depth)), token);
      }
    inside.exits.push_back({label, 0, std::make_shared<const Trie>(std::move(suffixes))});
  }
}

void MaskMaker::leave(const Inside& inside, const Pair& pair, std::vector<std::int32_t>& tokens) {
  const Position& position = automaton_.position(pair.position);
  const bool is_text = position.kind == Position::Kind::text;
  // What was captured may forbid what some other text allows: where that can matter, tokens are tried one by one.
  const bool captures = is_text && automaton_.captures(position);
  const int own = !is_text ? 0
                  : captures ? automaton_.position(automaton_.without_capture(position)).text.label
                             : position.text.label;
  std::vector<Pair> after;
  const auto go = [&](const Exit& exit, int label, const std::vector<Range>* only) {
    const Trie& trie = exit.suffixes ? *exit.suffixes : vocabulary_->trie();
    std::vector<std::int32_t> found, doubtful;
    if (pair.continuation == kRoot) {  // the text is over
      const TrieNode& node = trie.node(exit.node);
      for (std::uint32_t place = 0; place < node.own; ++place) found.push_back(trie.order()[node.first + place]);
    } else {
      after.clear();
      automaton_.pop(pair.continuation, label == kOwnLabel ? own : label, after);
      const int state = after.empty() ? kDead : automaton_.close(after);
      if (state == kDead) return;
      walk(trie, exit.node, state, found, captures ? &doubtful : nullptr);
      if (captures && !exit.suffixes) {
        doubtful.insert(doubtful.end(), found.begin(), found.end());
        found.clear();
      }
      for (std::int32_t token : doubtful)
        if (allowed(pair, token)) found.push_back(token);
    }
    for (std::int32_t token : found)
      if (!only || within(*only, std::uint32_t(vocabulary_->rank(token)))) tokens.push_back(token);
  };
  for (const Exit& exit : inside.exits) go(exit, exit.label, nullptr);
  if (inside.reference && inside.ends_as_reference)
    for (const Exit& exit : inside.reference->exits) go(exit, inside.reference_label, &inside.as_reference);
}

std::unique_ptr<Mask> MaskMaker::make(int index) {
  auto made = std::make_unique<Mask>();
  const std::vector<Pair> pairs = automaton_.state(index).pairs;
  std::vector<std::shared_ptr<const Inside>> dense;
  for (const Pair& pair : pairs) {
    const std::shared_ptr<const Inside> part = inside(pair.position);
    if (!part->factored) {
      walk(vocabulary_->trie(), 0, automaton_.close({pair}), made->tokens);
      continue;
    }
    if (part->bits) dense.push_back(part);
    else made->tokens.insert(made->tokens.end(), part->tokens.begin(), part->tokens.end());
    leave(*part, pair, made->tokens);
  }
  if (!automaton_.state(index).endings.empty())
    made->tokens.insert(made->tokens.end(), vocabulary_->stop_tokens().begin(), vocabulary_->stop_tokens().end());
  if (!dense.empty()) made->inside = dense[0];
  if (dense.size() > 1 || made->tokens.size() > kSparse) {
    auto bits = std::make_shared<Bits>(vocabulary_->words());
    for (const auto& part : dense) {
      Bits one(*part->bits);
      for (std::int32_t token : part->clear) drop(one, token);
      for (std::int32_t token : part->tokens) set(one, token);
      for (std::size_t word = 0; word < one.size(); ++word) (*bits)[word] |= one[word];
    }
    for (std::int32_t token : made->tokens) set(*bits, token);
    made->bits = std::move(bits);
    made->inside.reset();
    made->tokens.clear();
  }
  made->tokens.shrink_to_fit();
  return made;
}

const Mask& MaskMaker::mask(int state) {
  if (std::size_t(state) >= masks_.size()) masks_.resize(automaton_.states());
  if (!masks_[std::size_t(state)]) {
    std::unique_ptr<Mask> made = make(state);
    if (bytes_ > budget_) {
      masks_.clear();
      insides_.clear();
      bytes_ = 0;
    }
    if (masks_.size() < automaton_.states()) masks_.resize(automaton_.states());
    bytes_ += sizeof(Mask) + 4 * made->tokens.size() + (made->bits ? 4 * made->bits->size() : 0);
    masks_[std::size_t(state)] = std::move(made);
  }
  return *masks_[std::size_t(state)];
}

bool MaskMaker::longer_token(int state, std::string_view tail) {
  const Trie& trie = vocabulary_->trie();
  std::uint32_t node = 0;
  for (char byte : tail) {
    node = trie.child_by(node, std::uint8_t(byte));
    if (node == 0) return false;
    state = automaton_.step(state, std::uint8_t(byte));
    if (state == kDead) return false;
  }
  std::vector<std::int32_t> tokens;
  walk(trie, node, state, tokens);
  return tokens.size() > trie.node(node).own;
}

}  // namespace octavo::grammar
