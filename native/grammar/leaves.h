// Deterministic automata given by a state, used as parts of expressions: tries of literal texts, comparisons and
// remainders of decimal numbers (octavo/grammar/json_schema/numbers.py), and whatever Python defines.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "grammar/content.h"

namespace octavo::grammar {

enum class LeafKind : std::uint8_t { texts, comparison, multiple, foreign };

struct Leaf {
  LeafKind kind = LeafKind::texts;
  std::int32_t data = 0;  // index into the table of its kind
  std::int32_t state = 0, sign = 0, phase = 0, count = 0, order = 0;
};

struct LeafMove {
  std::uint32_t low, high;
  Leaf leaf;
};

struct TextsNode {
  std::uint32_t code;            // of the character that leads here
  std::int32_t index = -1;       // the text's number, or -1
  std::int32_t child = -1, sibling = -1;  // in rising order of their characters
};

struct Comparison {
  bool negative;
  std::string whole, fraction;
  bool allowed[3];  // of the orders -1, 0 and 1
  Content content;
};

struct Multiple {
  std::int64_t modulus;
  std::int32_t places;
};

struct Texts {
  std::vector<TextsNode> nodes;
  std::size_t longest = 0;
  Content content;
};

// A leaf that Python defines: the index of its state, whether it is nullable, its moves.
struct ForeignLeaf {
  std::function<bool(std::int32_t)> nullable;
  std::function<std::vector<LeafMove>(std::int32_t)> moves;
};

class LeafTable {
 public:
  Leaf texts(const std::vector<std::u32string>& texts);
  Leaf comparison(bool negative, std::string whole, std::string fraction, int allowed_bits);
  Leaf multiple(std::int64_t modulus, std::int32_t places);
  void set_foreign(ForeignLeaf foreign) { foreign_ = std::move(foreign); }

  bool nullable(const Leaf& leaf) const;
  std::vector<LeafMove> moves(const Leaf& leaf) const;
  Content content(const Leaf& leaf) const;
  std::size_t longest_text(const Leaf& leaf) const { return texts_[std::size_t(leaf.data)].longest; }
  std::int32_t text_index(const Leaf& leaf) const {
    return texts_[std::size_t(leaf.data)].nodes[std::size_t(leaf.state)].index;
  }

 private:
  std::vector<LeafMove> comparison_moves(const Leaf& leaf) const;
  std::vector<LeafMove> multiple_moves(const Leaf& leaf) const;
  int value_order(const Leaf& leaf) const;
  int whole_order(const Leaf& leaf) const;

  std::vector<Texts> texts_;
  std::vector<Comparison> comparisons_;
  std::vector<Multiple> multiples_;
  ForeignLeaf foreign_;
  std::uint64_t unique_ = unique_number();
};

}  // namespace octavo::grammar
