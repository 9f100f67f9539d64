// The strings of a vocabulary in three flat arrays: 262,144 tokens of Gemma take 6 MB so, and 60 as a list and a dict
// of Python's.  The slow twin is that dict: tests/text/test_string_table.py.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace octavo {

class StringTable {
 public:
  // Raises std::length_error past 4 GiB of text.
  void add(std::string_view text);

  // Adds up to `count` strings, each after its 64-bit length as in a GGUF file, and stops before one that does not fit
  // into `available` bytes.  Returns the bytes that were read.
  std::size_t read(const std::uint8_t* bytes, std::size_t available, std::size_t count);

  std::size_t size() const { return ends_.size(); }
  std::string_view operator[](std::size_t index) const {
    const std::size_t begin = index ? ends_[index - 1] : 0;
    return {text_.data() + begin, ends_[index] - begin};
  }

  // The last index of a string that equals `text`, or -1.  The first call makes the index.
  std::int64_t find(std::string_view text);

  // The same strings with `other` wherever `part`, which is not empty, stands in them.
  StringTable replaced(std::string_view part, std::string_view other) const;

  // Indices of the strings that hold `part`, in order.
  std::vector<std::uint32_t> holding(std::string_view part) const;

  // The UTF-8 characters that stand right before `mark` in some string, each once, one after the other.
  std::vector<char> characters_before(std::string_view mark) const;

  // The index of the first string that is not UTF-8, or -1.
  std::int64_t first_invalid() const;

 private:
  void make_index();
  std::uint32_t& slot_of(std::string_view text);

  std::vector<char> text_;
  std::vector<std::uint32_t> ends_;
  std::vector<std::uint32_t> slots_;  // index + 1, or 0: open addressing, at most half full
};

}  // namespace octavo
