// Places inside a rule (octavo/grammar/network.py): text, stepped here byte by byte over an expression, and whatever
// else Python defines, given whole as an outline or stepped by callbacks.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "grammar/content.h"
#include "grammar/expressions.h"

namespace octavo::grammar {

constexpr int kDead = -1, kUnknown = -2, kNoReturn = -1, kNoLabel = -1;

struct Call {
  int callee;    // a position
  int returning;  // kNoReturn: a tail call, the callee's end is the end of this rule
};

// A set of bytes.
struct ByteSet {
  std::uint64_t words[4] = {0, 0, 0, 0};
  bool has(std::uint8_t byte) const { return words[byte / 64] >> (byte % 64) & 1; }
  void add(std::uint8_t byte) { words[byte / 64] |= std::uint64_t(1) << (byte % 64); }
  void add(int low, int high) {
    for (int byte = low; byte <= high; ++byte) add(std::uint8_t(byte));
  }
  void add(const ByteSet& other) {
    for (int word = 0; word < 4; ++word) words[word] |= other.words[word];
  }
};

// A character that has begun: the code points that it may still become, and how many bytes (or hex digits) are to come.
struct Partial {
  std::uint32_t low = 0, high = 0;
  int left = 0;
  bool operator==(const Partial&) const = default;
};

enum class Mode : std::uint8_t { body, before, utf8, escape, hex, low_escape, low_u, low_hex, closed, plain };

struct TextPlace {
  Algebra* algebra = nullptr;
  int expression = 0;
  Mode mode = Mode::plain;
  Partial partial;
  int watch = -1;  // an automaton that looks on, by number; -1: none, or one that has nothing more to see
  int label = 0;   // with which the rule ends where there is no watch
};

// Everything about a position of Python's at once.  White space: layout 2 all, 1 a space only, 0 none.
struct Outline {
  int ending = kNoLabel;
  bool silent = false, stepped = false;  // stepped: each byte is asked of Python
  int layout = 0;
  std::vector<std::pair<std::uint8_t, int>> moves, tight;  // byte -> position; tight: only without white space
  std::vector<Call> calls;
};

// What a watch captures: nothing; or some text that is equal to no other, which allows more than any real text.
constexpr int kNothing = -1, kSomeText = -2;

struct Watch {
  int labeler;  // whom to ask for the label
  Algebra* algebra;
  int texts;                 // derivative of a leaf of texts, by which the text is known
  std::vector<int> classes;  // and of other expressions
  int captured = kNothing;   // the text itself, by number, where all of it matters
};

// What only Python knows.
class Network {
 public:
  virtual ~Network() = default;
  virtual Outline outline(int object) = 0;
  virtual int step(int object, std::uint8_t byte) = 0;
  virtual int resume(int returning, int label) = 0;
  // `captured` is null for none and for kSomeText.
  virtual int label(int labeler, int text_index, std::uint32_t classes, const std::u32string* captured) = 0;
  // Instead of its calls, those of a position that lead to an end; false: none of its own.
  virtual bool closing_calls(int object, std::vector<Call>& calls) = 0;
  // Ways on of a stepped position for a closing; false: none of its own.
  virtual bool closing_steps(int object, std::vector<std::pair<std::string, int>>& steps) = 0;
};

bool begin_utf8(std::uint8_t byte, Partial& partial);
bool continue_utf8(Partial& partial, std::uint8_t byte);
// The white space after one more byte of it; -1 where it is not allowed.
int next_space(int layout, int space, std::uint8_t byte);

// Steps of text.  What was read of a character goes to `character`, which makes the place after it.
enum class TextStep { dead, place, character };
TextStep step_text(TextPlace& place, std::uint8_t byte, std::uint32_t& code_point);
bool text_ends(const TextPlace& place);
// Every byte that may lead on from here, and few others: what a walk of a trie need not ask further about.
ByteSet text_begins(const TextPlace& place);
std::uint32_t representative(std::uint32_t low, std::uint32_t high);
std::string utf8(std::uint32_t code_point);
std::string written_in_json(std::uint32_t code_point);

}  // namespace octavo::grammar
