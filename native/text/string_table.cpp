#include "text/string_table.h"

#include <cstring>
#include <random>
#include <set>
#include <stdexcept>
#include <string>

namespace octavo {
namespace {

// A file may choose its strings so that they collide under a hash that it knows; it does not know these.
struct Keys {
  std::uint64_t start, multiplier;
  Keys() {
    std::random_device device;
    start = (std::uint64_t(device()) << 32) | device();
    multiplier = (std::uint64_t(device()) << 32) | device() | 1;
  }
};

std::uint64_t folded_product(std::uint64_t left, std::uint64_t right) {
  const unsigned __int128 product = (unsigned __int128)left * right;
  return std::uint64_t(product) ^ std::uint64_t(product >> 64);
}

std::uint64_t hash(std::string_view text) {
  static const Keys keys;
  std::uint64_t sum = keys.start ^ text.size();
  while (text.size() >= 8) {
    std::uint64_t word;
    std::memcpy(&word, text.data(), 8);
    sum = folded_product(sum ^ word, keys.multiplier);
    text.remove_prefix(8);
  }
  std::uint64_t rest = 0;
  if (!text.empty()) std::memcpy(&rest, text.data(), text.size());
  return folded_product(folded_product(sum ^ rest, keys.multiplier), keys.multiplier);
}

bool continues(unsigned char byte) { return (byte & 0xC0) == 0x80; }

// Unicode, table 3-7: no overlong forms, no surrogates, nothing past U+10FFFF.
bool is_utf8(std::string_view text) {
  const auto* at = (const unsigned char*)text.data();
  const auto* end = at + text.size();
  while (at < end) {
    const unsigned char first = *at;
    if (first < 0x80) {
      ++at;
      continue;
    }
    const int length = first >= 0xC2 && first <= 0xDF ? 2 : first >= 0xE0 && first <= 0xEF ? 3
                     : first >= 0xF0 && first <= 0xF4 ? 4 : 0;
    if (!length || end - at < length) return false;
    if (first == 0xE0 && at[1] < 0xA0) return false;
    if (first == 0xED && at[1] > 0x9F) return false;
    if (first == 0xF0 && at[1] < 0x90) return false;
    if (first == 0xF4 && at[1] > 0x8F) return false;
    for (int i = 1; i < length; ++i)
      if (!continues(at[i])) return false;
    at += length;
  }
  return true;
}

}  // namespace

void StringTable::add(std::string_view text) {
  if (text_.size() + text.size() > UINT32_MAX) throw std::length_error("more than 4 GiB of text");
  text_.insert(text_.end(), text.begin(), text.end());
  ends_.push_back(std::uint32_t(text_.size()));
  slots_.clear();
}

std::size_t StringTable::read(const std::uint8_t* bytes, std::size_t available, std::size_t count) {
  // Room for what is there: lengths are looked at before anything is copied.
  std::size_t position = 0, strings = 0, characters = 0;
  while (strings < count && available - position >= 8) {
    std::uint64_t length;
    std::memcpy(&length, bytes + position, 8);
    if (length > available - position - 8) break;
    position += 8 + length;
    characters += length;
    ++strings;
  }
  if (text_.size() + characters > UINT32_MAX) throw std::length_error("more than 4 GiB of text");
  text_.reserve(text_.size() + characters);
  ends_.reserve(ends_.size() + strings);
  for (std::size_t at = 0; at < position;) {
    std::uint64_t length;
    std::memcpy(&length, bytes + at, 8);
    add({(const char*)bytes + at + 8, length});
    at += 8 + length;
  }
  return position;
}

std::uint32_t& StringTable::slot_of(std::string_view text) {
  std::size_t at = hash(text) & (slots_.size() - 1);
  while (slots_[at] && (*this)[slots_[at] - 1] != text) at = (at + 1) & (slots_.size() - 1);
  return slots_[at];
}

void StringTable::make_index() {
  std::size_t slots = 16;
  while (slots < 2 * size()) slots *= 2;
  slots_.assign(slots, 0);
  for (std::size_t index = 0; index < size(); ++index) slot_of((*this)[index]) = std::uint32_t(index + 1);
}

std::int64_t StringTable::find(std::string_view text) {
  if (slots_.empty()) make_index();
  return std::int64_t(slot_of(text)) - 1;
}

StringTable StringTable::replaced(std::string_view part, std::string_view other) const {
  StringTable table;
  table.text_.reserve(text_.size());
  table.ends_.reserve(ends_.size());
  std::string changed;
  for (std::size_t index = 0; index < size(); ++index) {
    std::string_view text = (*this)[index];
    changed.clear();
    for (std::size_t at; (at = text.find(part)) != std::string_view::npos; text.remove_prefix(at + part.size()))
      changed.append(text.substr(0, at)).append(other);
    table.add(changed.append(text));
  }
  return table;
}

std::vector<std::uint32_t> StringTable::holding(std::string_view part) const {
  std::vector<std::uint32_t> found;
  for (std::size_t index = 0; index < size(); ++index)
    if ((*this)[index].find(part) != std::string_view::npos) found.push_back(std::uint32_t(index));
  return found;
}

std::vector<char> StringTable::characters_before(std::string_view mark) const {
  std::set<std::string_view> found;
  for (std::size_t index = 0; index < size(); ++index) {
    const std::string_view text = (*this)[index];
    for (std::size_t at = text.find(mark); at != std::string_view::npos; at = text.find(mark, at + 1)) {
      std::size_t begin = at;
      while (begin > 0 && continues((unsigned char)text[--begin])) continue;
      if (at > 0) found.insert(text.substr(begin, at - begin));
    }
  }
  std::vector<char> characters;
  for (const std::string_view character : found)
    characters.insert(characters.end(), character.begin(), character.end());
  return characters;
}

std::int64_t StringTable::first_invalid() const {
  for (std::size_t index = 0; index < size(); ++index)
    if (!is_utf8((*this)[index])) return std::int64_t(index);
  return -1;
}

}  // namespace octavo
