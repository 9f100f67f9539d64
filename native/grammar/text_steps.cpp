// The bytes of text: UTF-8, and the inside of a JSON string; twin of octavo/grammar/text_positions.py.
#include <algorithm>
#include <cstdio>

#include "grammar/positions.h"

namespace octavo::grammar {

namespace {

// What four hex digits may stand for: no printable ASCII but the quote and the backslash, no half of a pair.
constexpr std::uint32_t kEscaped[][2] = {{0, 0x1F}, {0x22, 0x22}, {0x5C, 0x5C}, {0x7F, 0xD7FF}, {0xE000, 0xFFFF}};

int hex_digit(std::uint8_t byte) {
  if (byte >= '0' && byte <= '9') return byte - '0';
  if (byte >= 'a' && byte <= 'f') return byte - 'a' + 10;
  if (byte >= 'A' && byte <= 'F') return byte - 'A' + 10;
  return -1;
}

int escaped_character(std::uint8_t byte) {
  switch (byte) {
    case '"': return '"';
    case '\\': return '\\';
    case 'b': return 8;
    case 'f': return 12;
    case 'n': return 10;
    case 'r': return 13;
    case 't': return 9;
    default: return -1;
  }
}

bool escapable(const TextPlace& place, std::uint32_t low, std::uint32_t high) {
  for (const auto& range : kEscaped) {
    const std::uint32_t start = std::max(low, range[0]), end = std::min(high, range[1]);
    if (start <= end && place.algebra->reachable(place.expression, start, end)) return true;
  }
  const std::uint32_t first = std::max(low, 0xD800u), last = std::min(high, 0xDBFFu);
  return first <= last && place.algebra->reachable(place.expression, 0x10000 + ((first - 0xD800) << 10),
                                                   0x10000 + ((last - 0xD800) << 10) + 0x3FF);
}

TextStep to(TextPlace& place, Mode mode, const Partial& partial = {}) {
  place.mode = mode;
  place.partial = partial;
  return TextStep::place;
}

TextStep step_hex(TextPlace& place, std::uint8_t byte, std::uint32_t& code_point) {
  const int digit = hex_digit(byte);
  if (digit < 0) return TextStep::dead;
  const int shift = 4 * (place.partial.left - 1);
  const std::uint32_t low = place.partial.low | std::uint32_t(digit) << shift;
  if (place.partial.left > 1) {
    const std::uint32_t high = low | ((1u << shift) - 1);
    return escapable(place, low, high) ? to(place, Mode::hex, {low, high, place.partial.left - 1}) : TextStep::dead;
  }
  if (low >= 0xD800 && low <= 0xDBFF) {
    const std::uint32_t start = 0x10000 + ((low - 0xD800) << 10);
    if (!place.algebra->reachable(place.expression, start, start + 0x3FF)) return TextStep::dead;
    return to(place, Mode::low_escape, {start, start + 0x3FF, 4});
  }
  code_point = low;
  for (const auto& range : kEscaped)
    if (low >= range[0] && low <= range[1]) return TextStep::character;
  return TextStep::dead;
}

// The second half of a surrogate pair, DC00 to DFFF: the partial holds the code points of the pair.
TextStep step_low_hex(TextPlace& place, std::uint8_t byte, std::uint32_t& code_point) {
  int digit = hex_digit(byte);
  const int left = place.partial.left;
  if (digit < 0 || (left == 4 && digit != 0xD)) return TextStep::dead;
  if (left == 4) return to(place, Mode::low_hex, {place.partial.low, place.partial.high, 3});
  if (left == 3) {
    if (digit < 0xC) return TextStep::dead;
    digit -= 0xC;
  }
  const int shift = 4 * (left - 1);
  const std::uint32_t low = place.partial.low | std::uint32_t(digit) << shift;
  code_point = low;
  if (left == 1) return TextStep::character;
  const std::uint32_t high = low | ((1u << shift) - 1);
  if (!place.algebra->reachable(place.expression, low, high)) return TextStep::dead;
  return to(place, Mode::low_hex, {low, high, left - 1});
}

TextStep step_utf8(TextPlace& place, Mode mode, Partial partial, std::uint32_t& code_point) {
  if (partial.left == 0) {
    code_point = partial.low;
    return TextStep::character;
  }
  if (!place.algebra->reachable(place.expression, partial.low, partial.high)) return TextStep::dead;
  return to(place, mode, partial);
}

TextStep step_body(TextPlace& place, std::uint8_t byte, std::uint32_t& code_point) {
  if (byte == '"') return place.algebra->nullable(place.expression) ? to(place, Mode::closed) : TextStep::dead;
  if (byte == '\\') return escapable(place, 0, 0xFFFF) ? to(place, Mode::escape) : TextStep::dead;
  if (byte < 0x20) return TextStep::dead;
  code_point = byte;
  if (byte < 0x80) return TextStep::character;
  Partial partial;
  return begin_utf8(byte, partial) ? step_utf8(place, Mode::utf8, partial, code_point) : TextStep::dead;
}

}  // namespace

bool begin_utf8(std::uint8_t byte, Partial& partial) {
  if (byte >= 0xC2 && byte <= 0xDF) {
    partial = {std::uint32_t(byte & 0x1F) << 6, (std::uint32_t(byte & 0x1F) << 6) | 0x3F, 1};
  } else if (byte >= 0xE0 && byte <= 0xEF) {
    const std::uint32_t low = std::uint32_t(byte & 0x0F) << 12;
    partial = {std::max(low, 0x800u), low | 0xFFF, 2};
  } else if (byte >= 0xF0 && byte <= 0xF4) {
    const std::uint32_t low = std::uint32_t(byte & 0x07) << 18;
    partial = {std::max(low, 0x10000u), std::min(low | 0x3FFFF, 0x10FFFFu), 3};
  } else {
    return false;
  }
  return true;
}

bool continue_utf8(Partial& partial, std::uint8_t byte) {
  if ((byte & 0xC0) != 0x80) return false;
  const int shift = 6 * (partial.left - 1);
  const std::uint32_t base = partial.high >> (shift + 6) << (shift + 6);
  const std::uint32_t start = base | std::uint32_t(byte & 0x3F) << shift, end = start | ((1u << shift) - 1);
  partial = {std::max(partial.low, start), std::min(partial.high, end), partial.left - 1};
  return partial.low <= partial.high;
}

int next_space(int layout, int space, std::uint8_t byte) {
  constexpr int kNone = 0, kSpace = 1, kLine = 2, kMaxIndent = 64;
  if (layout == 0) return -1;
  const bool in_line = space >= kLine && space < kLine + kMaxIndent;
  if (byte == ' ') {
    if (space == kNone) return kSpace;
    return in_line ? space + 1 : -1;
  }
  if (layout < 2) return -1;
  if (byte == '\n' && space == kNone) return kLine;
  return byte == '\t' && in_line ? space + 1 : -1;
}

TextStep step_text(TextPlace& place, std::uint8_t byte, std::uint32_t& code_point) {
  Partial partial = place.partial;
  switch (place.mode) {
    case Mode::body:
      return step_body(place, byte, code_point);
    case Mode::before:
      return byte == '"' ? to(place, Mode::body) : TextStep::dead;
    case Mode::plain:
      code_point = byte;
      if (partial.left == 0 && byte < 0x80) return TextStep::character;
      if (!(partial.left == 0 ? begin_utf8(byte, partial) : continue_utf8(partial, byte))) return TextStep::dead;
      return step_utf8(place, Mode::plain, partial, code_point);
    case Mode::utf8:
      return continue_utf8(partial, byte) ? step_utf8(place, Mode::utf8, partial, code_point) : TextStep::dead;
    case Mode::escape: {
      if (byte == 'u') return escapable(place, 0, 0xFFFF) ? to(place, Mode::hex, {0, 0xFFFF, 4}) : TextStep::dead;
      const int character = escaped_character(byte);
      code_point = std::uint32_t(character);
      return character >= 0 ? TextStep::character : TextStep::dead;
    }
    case Mode::hex:
      return step_hex(place, byte, code_point);
    case Mode::low_escape:
      return byte == '\\' ? to(place, Mode::low_u, partial) : TextStep::dead;
    case Mode::low_u:
      return byte == 'u' ? to(place, Mode::low_hex, partial) : TextStep::dead;
    case Mode::low_hex:
      return step_low_hex(place, byte, code_point);
    case Mode::closed:
      return TextStep::dead;
  }
  return TextStep::dead;
}

bool text_ends(const TextPlace& place) {
  if (place.mode == Mode::plain) return place.partial == Partial{} && place.algebra->nullable(place.expression);
  return place.mode == Mode::closed;
}

std::uint32_t representative(std::uint32_t low, std::uint32_t high) {
  for (std::uint32_t code : {0x61u, 0x30u, 0x20u})
    if (low <= code && code <= high) return code;
  for (std::uint32_t code = std::max(low, 0x23u); code <= std::min(high, 0x7Eu); ++code)
    if (code != 0x5C) return code;
  return low;
}

std::string utf8(std::uint32_t code) {
  std::string result;
  const auto byte = [&](std::uint32_t value) { result.push_back(char(value)); };
  if (code < 0x80) {
    byte(code);
  } else if (code < 0x800) {
    byte(0xC0 | code >> 6);
  } else if (code < 0x10000) {
    byte(0xE0 | code >> 12);
    byte(0x80 | (code >> 6 & 0x3F));
  } else {
    byte(0xF0 | code >> 18);
    byte(0x80 | (code >> 12 & 0x3F));
    byte(0x80 | (code >> 6 & 0x3F));
  }
  if (code >= 0x80) byte(0x80 | (code & 0x3F));
  return result;
}

std::string written_in_json(std::uint32_t code) {
  if (code == '"' || code == '\\') return std::string("\\") + char(code);
  if (code >= 0x20) return utf8(code);
  char text[8];
  std::snprintf(text, sizeof text, "\\u%04x", unsigned(code));
  return text;
}

}  // namespace octavo::grammar
