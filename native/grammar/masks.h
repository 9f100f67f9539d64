// Masks on the trie of the vocabulary: the fast twin of octavo/grammar/engine/masks.py.
//
// What a token does inside the innermost rule does not depend on its callers.  It is computed once for each content of
// a position, for all grammars of a vocabulary (`InsideCache`): the tokens that stay, and the suffixes of those that
// leave, as a small trie of their own.  A state's mask is the first, and of the second what its callers allow.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "grammar/automaton.h"
#include "grammar/vocabulary.h"

namespace octavo::grammar {

constexpr int kOwnLabel = -1;  // the label of the position itself, which its content does not tell

using Bits = std::vector<std::uint32_t>;

// The suffixes of the tokens that leave a rule with one label, or a node of the vocabulary's trie below which all leave.
struct Exit {
  int label;
  std::uint32_t node;  // where `suffixes` is empty
  std::shared_ptr<const Trie> suffixes;
};

struct Range {
  std::uint32_t first, last;  // of places in the trie's order; last excluded
};

void add_range(std::vector<Range>& ranges, const Range& range);  // joined with the last where it follows

struct Inside {
  std::shared_ptr<const Bits> bits;  // tokens that stay, if many; else all of them are in `tokens`
  std::vector<std::int32_t> clear;   // but not these
  std::vector<std::int32_t> tokens;  // and these
  std::vector<Exit> exits;
  // Where the bits are those of an unconditional string: which tokens are as there, and the label of their ends.
  std::shared_ptr<const Inside> reference;
  std::vector<Range> as_reference;
  bool ends_as_reference = false;  // false: none of them ends there
  int reference_label = kOwnLabel;
  bool factored = true;  // false: ends are everywhere, so that a mask is better walked whole
  std::size_t bytes() const;
};

// What white space does to the tokens, wherever it may come: those of nothing else, and where they may go on.
struct Spaces {
  struct Node {
    std::uint32_t node;
    int depth;  // in bytes
  };
  std::vector<std::int32_t> tokens;
  std::vector<Node> nodes;  // of the vocabulary's trie with other bytes below; its root is the first
};

// Under a budget of bytes, least recently used out first.
class InsideCache {
 public:
  explicit InsideCache(std::size_t budget) : budget_(budget) {}
  std::shared_ptr<const Inside> find(const Content& content);
  void store(const Content& content, std::shared_ptr<const Inside> inside);
  // Of a layout, where white space has come to `space` (next_space): one each, few and small.
  std::shared_ptr<const Spaces> spaces(const Vocabulary& vocabulary, int layout, int space);
  std::size_t bytes() const { return bytes_; }
  std::size_t entries() const { return entries_.size(); }
  const std::shared_ptr<TablePool>& tables() const { return tables_; }

 private:
  struct Entry {
    Content content;
    std::shared_ptr<const Inside> inside;
  };
  std::shared_ptr<TablePool> tables_ = std::make_shared<TablePool>();
  std::mutex mutex_;
  std::size_t budget_, bytes_ = 0;
  std::list<Entry> entries_;  // most recently used first
  std::unordered_map<Content, std::list<Entry>::iterator, ContentHash> places_;
  std::map<std::pair<int, int>, std::shared_ptr<const Spaces>> spaces_;
};

struct Mask {
  std::shared_ptr<const Inside> inside;  // whose bits, `clear` and `tokens` come first; may be absent
  std::shared_ptr<const Bits> bits;      // instead of all else, where several dense sets meet
  std::vector<std::int32_t> tokens;
  void fill(std::uint32_t* words, std::size_t count) const;
};

class MaskMaker {
 public:
  MaskMaker(Automaton& automaton, std::shared_ptr<const Vocabulary> vocabulary, std::shared_ptr<InsideCache> shared,
            std::size_t budget)
      : automaton_(automaton), vocabulary_(std::move(vocabulary)), shared_(std::move(shared)), budget_(budget) {}

  const Mask& mask(int state);
  std::size_t bytes() const { return bytes_; }
  // Whether some token goes on after `tail` in this state.
  bool longer_token(int state, std::string_view tail);

 private:
  struct Found {
    std::vector<std::int32_t> tokens;
    struct Hole {
      std::uint32_t node;
      int label, depth;
    };
    std::vector<Hole> holes;
    std::vector<Range> as_reference;
    int reference_label = kOwnLabel;
    bool has_reference_label = false, too_many = false;
  };
  // Below a node of the vocabulary's trie, `depth` bytes down, where a state is.
  void walk_inside(std::uint32_t root, int depth, int state, bool with_reference, Found& found);
  bool arrive(std::uint32_t node, int target, int depth, bool with_reference, Found& found);
  // As walk_inside from the root, for a position whose white space can be looked at apart; false, and nothing is done,
  // for any other.
  bool walk_spaces(int position, Found& found);
  // `doubtful`, if given, gets the tokens on whose way another text begins.
  void walk(const Trie& trie, std::uint32_t root, int state, std::vector<std::int32_t>& tokens,
            std::vector<std::int32_t>* doubtful = nullptr);
  // Subtrees of the vocabulary's trie of which all tokens stay inside a rule, without a look at each.
  bool take_whole(std::uint32_t node, int state, bool with_reference, Found& found);
  bool as_reference(int state, Found& found) const;
  bool goes_on(int lasting, std::uint32_t node) const;
  bool stays(int state, const BytesBelow& below) const;
  bool runs_on(int state, std::uint32_t node) const;
  bool allowed(const Pair& pair, std::int32_t token);
  std::shared_ptr<const Inside> inside(int position);
  std::shared_ptr<const Inside> make_inside(int position);
  void add_exits(const Found& found, bool own_label, Inside& inside);
  void leave(const Inside& inside, const Pair& pair, std::vector<std::int32_t>& tokens);
  std::unique_ptr<Mask> make(int state);

  Automaton& automaton_;
  std::shared_ptr<const Vocabulary> vocabulary_;
  std::shared_ptr<InsideCache> shared_;
  std::size_t budget_, bytes_ = 0;
  std::vector<std::unique_ptr<Mask>> masks_;
  std::vector<std::shared_ptr<const Inside>> insides_;  // by position, of those of this automaton
};

}  // namespace octavo::grammar
