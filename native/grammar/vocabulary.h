// Tokens as a trie in depth-first order, in flat arrays: the fast twin of TokenTrie in octavo/grammar/tokens.py.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace octavo::grammar {

struct TrieNode {
  std::uint32_t end;    // the subtree is this node .. end - 1
  std::uint32_t first;  // its tokens are order[first] .. order[nodes[end].first - 1]
  std::uint16_t own;    // tokens that end exactly here
  std::uint8_t byte;
  std::uint8_t characters;  // the most characters (bytes that begin one) on a way down from here, at most 255
};

// The bytes on all ways down from a node (itself not included).
struct BytesBelow {
  std::uint64_t ascii[2] = {0, 0};
  bool others = false;  // some byte is not ASCII
  std::uint64_t leads = 0;  // of those from 0xC0 on
  bool utf8 = true;     // whole characters follow, of which the last may be unfinished
};

class Trie {
 public:
  // (bytes, token) in any order; several tokens may have the same bytes.
  explicit Trie(std::vector<std::pair<std::string_view, std::int32_t>> tokens);

  const TrieNode& node(std::uint32_t index) const { return nodes_[index]; }
  const BytesBelow& below(std::uint32_t index) const { return below_[index]; }
  std::uint32_t size() const { return std::uint32_t(nodes_.size()) - 1; }
  const std::vector<std::int32_t>& order() const { return order_; }
  std::uint32_t first(std::uint32_t node) const { return nodes_[node].first; }
  std::uint32_t last(std::uint32_t node) const { return nodes_[nodes_[node].end].first; }
  // The nodes right below a node, in order, are child(i) by the byte child_byte(i), from children(node) to
  // children(node + 1): a walk passes over those that it does not want without a look at them.
  std::uint32_t children(std::uint32_t node) const { return children_[node]; }
  std::uint32_t child(std::uint32_t place) const { return child_nodes_[place]; }
  std::uint8_t child_byte(std::uint32_t place) const { return child_bytes_[place]; }
  // The node below `node` for a byte, or 0.
  std::uint32_t child_by(std::uint32_t node, std::uint8_t byte) const;
  std::size_t bytes() const {
    const std::size_t of_node = sizeof(TrieNode) + sizeof(BytesBelow) + 2 * sizeof(std::uint32_t) + 1;
    return nodes_.size() * of_node + order_.size() * sizeof(std::int32_t);
  }

 private:
  std::vector<TrieNode> nodes_;  // and one after the last
  void find_bytes_below();
  void find_children();

  std::vector<BytesBelow> below_;
  std::vector<std::uint32_t> children_, child_nodes_;
  std::vector<std::uint8_t> child_bytes_;
  std::vector<std::int32_t> order_;
};

class Vocabulary {
 public:
  // Tokens of no bytes are never text.  `size` counts all tokens of a mask.
  Vocabulary(std::vector<std::string> tokens, std::vector<std::int32_t> stop_tokens, std::int32_t size);

  const Trie& trie() const { return trie_; }
  std::int32_t size() const { return size_; }
  std::size_t words() const { return std::size_t(size_ + 31) / 32; }
  std::string_view token(std::int32_t token) const {
    return std::size_t(token) < tokens_.size() ? std::string_view(tokens_[std::size_t(token)]) : std::string_view();
  }
  bool stops(std::int32_t token) const;
  // Tokens that spell some bytes, the longest first; none where no token has a byte that is needed.
  std::vector<std::int32_t> split(std::string_view text) const;
  const std::vector<std::int32_t>& stop_tokens() const { return stop_tokens_; }
  // A token's place in the trie's order; -1 for one without bytes.
  std::int32_t rank(std::int32_t token) const { return ranks_[std::size_t(token)]; }

 private:
  std::vector<std::string> tokens_;
  std::vector<std::int32_t> stop_tokens_;
  std::int32_t size_;
  Trie trie_;
  std::vector<std::int32_t> ranks_;
};

}  // namespace octavo::grammar
