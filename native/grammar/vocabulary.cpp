#include "grammar/vocabulary.h"

#include <algorithm>

namespace octavo::grammar {

Trie::Trie(std::vector<std::pair<std::string_view, std::int32_t>> tokens) {
  std::sort(tokens.begin(), tokens.end());
  nodes_.push_back({0, 0, 0, 0, 0});
  std::vector<std::uint32_t> path{0};
  std::string_view before;
  order_.reserve(tokens.size());
  const auto close = [&](std::size_t keep) {
    while (path.size() > keep) {
      TrieNode& node = nodes_[path.back()];
      node.end = std::uint32_t(nodes_.size());
      path.pop_back();
      if (path.empty()) break;
      const bool begins = (node.byte & 0xC0) != 0x80;
      TrieNode& above = nodes_[path.back()];
      above.characters = std::uint8_t(std::max<int>(above.characters, std::min(255, node.characters + begins)));
    }
  };
  for (const auto& [text, token] : tokens) {
    const std::size_t shared =
        std::size_t(std::mismatch(text.begin(), text.end(), before.begin(), before.end()).first - text.begin());
    close(shared + 1);
    for (char byte : text.substr(shared)) {
      path.push_back(std::uint32_t(nodes_.size()));
      nodes_.push_back({0, std::uint32_t(order_.size()), 0, std::uint8_t(byte), 0});
    }
    ++nodes_[path.back()].own;
    order_.push_back(token);
    before = text;
  }
  close(0);
  nodes_.push_back({std::uint32_t(nodes_.size()), std::uint32_t(order_.size()), 0, 0, 0});
  find_bytes_below();
  find_children();
}

void Trie::find_children() {
  const std::uint32_t count = size();
  children_.assign(count + 1, 0);
  std::vector<std::uint32_t> above(count, 0), path;
  for (std::uint32_t node = 0; node < count; ++node) {
    while (!path.empty() && node >= nodes_[path.back()].end) path.pop_back();
    if (!path.empty()) ++children_[(above[node] = path.back()) + 1];
    path.push_back(node);
  }
  for (std::uint32_t node = 0; node < count; ++node) children_[node + 1] += children_[node];
  std::vector<std::uint32_t> next(children_.begin(), children_.end() - 1);
  child_nodes_.resize(count - 1);
  child_bytes_.resize(count - 1);
  for (std::uint32_t node = 1; node < count; ++node) {
    const std::uint32_t place = next[above[node]]++;
    child_nodes_[place] = node;
    child_bytes_[place] = nodes_[node].byte;
  }
}

namespace {
// The bytes that a character's rest may have: how many, and the bounds of the first.  None: not within a character.
struct Rest {
  int left = 0;
  std::uint8_t low = 0x80, high = 0xBF;
};

bool advance(Rest& rest, std::uint8_t byte) {
  if (rest.left > 0) {
    const bool good = byte >= rest.low && byte <= rest.high;
    rest = {rest.left - 1};
    return good;
  }
  if (byte < 0x80) return true;
  if (byte >= 0xC2 && byte <= 0xDF) rest = {1};
  else if (byte >= 0xE0 && byte <= 0xEF) rest = {2, std::uint8_t(byte == 0xE0 ? 0xA0 : 0x80), std::uint8_t(byte == 0xED ? 0x9F : 0xBF)};
  else if (byte >= 0xF0 && byte <= 0xF4) rest = {3, std::uint8_t(byte == 0xF0 ? 0x90 : 0x80), std::uint8_t(byte == 0xF4 ? 0x8F : 0xBF)};
  else return false;
  return true;
}
}  // namespace

void Trie::find_bytes_below() {
  below_.resize(nodes_.size());
  struct Open {
    std::uint32_t node;
    Rest rest;  // read from the nearest boundary of characters above
    bool good;
  };
  std::vector<Open> path{{0, {}, true}};
  const auto close = [&] {
    const std::uint32_t node = path.back().node;
    const bool good = path.back().good;
    path.pop_back();
    if (path.empty()) return;
    BytesBelow& above = below_[path.back().node];
    const BytesBelow& here = below_[node];
    const std::uint8_t byte = nodes_[node].byte;
    if (byte < 0x80) above.ascii[byte / 64] |= std::uint64_t(1) << (byte % 64);
    else above.others = true;
    if (byte >= 0xC0) above.leads |= std::uint64_t(1) << (byte - 0xC0);
    above.ascii[0] |= here.ascii[0];
    above.ascii[1] |= here.ascii[1];
    above.others |= here.others;
    above.leads |= here.leads;
    above.utf8 = above.utf8 && good && here.utf8;
  };
  for (std::uint32_t node = 1; node < nodes_[0].end; ++node) {
    while (node >= nodes_[path.back().node].end) close();
    // Below a node that is no boundary, "good" still means: as the character above began.
    Rest rest = path.back().rest;
    const bool good = advance(rest, nodes_[node].byte);
    path.push_back({node, good ? rest : Rest{}, good});
  }
  while (!path.empty()) close();
}

std::uint32_t Trie::child_by(std::uint32_t node, std::uint8_t byte) const {
  const auto begin = child_bytes_.begin() + children_[node], end = child_bytes_.begin() + children_[node + 1];
  const auto found = std::lower_bound(begin, end, byte);
  return found == end || *found != byte ? 0 : child_nodes_[std::size_t(found - child_bytes_.begin())];
}

namespace {
std::vector<std::pair<std::string_view, std::int32_t>> numbered(const std::vector<std::string>& tokens) {
  std::vector<std::pair<std::string_view, std::int32_t>> result;
  for (std::size_t token = 0; token < tokens.size(); ++token)
    if (!tokens[token].empty()) result.emplace_back(tokens[token], std::int32_t(token));
  return result;
}
}  // namespace

Vocabulary::Vocabulary(std::vector<std::string> tokens, std::vector<std::int32_t> stop_tokens, std::int32_t size)
    : tokens_(std::move(tokens)), stop_tokens_(std::move(stop_tokens)), size_(size), trie_(numbered(tokens_)),
      ranks_(std::size_t(size), -1) {
  for (std::size_t place = 0; place < trie_.order().size(); ++place)
    ranks_[std::size_t(trie_.order()[place])] = std::int32_t(place);
}

bool Vocabulary::stops(std::int32_t token) const {
  return std::find(stop_tokens_.begin(), stop_tokens_.end(), token) != stop_tokens_.end();
}

std::vector<std::int32_t> Vocabulary::split(std::string_view text) const {
  std::vector<std::int32_t> result;
  for (std::size_t begin = 0; begin < text.size();) {
    std::uint32_t node = 0;
    std::int32_t found = -1;
    std::size_t end = begin;
    for (std::size_t place = begin; place < text.size(); ++place) {
      node = trie_.child_by(node, std::uint8_t(text[place]));
      if (node == 0) break;
      if (trie_.node(node).own) {
        found = trie_.order()[trie_.first(node)];
        end = place + 1;
      }
    }
    if (found < 0) return {};
    result.push_back(found);
    begin = end;
  }
  return result;
}

}  // namespace octavo::grammar
