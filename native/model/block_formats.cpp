#include "model/block_formats.h"

#include <cstring>
#include <stdexcept>
#include <string>

#include "support/half.h"

namespace octavo {
namespace {

// Non-linear 4-bit values (IQ4_NL, IQ4_XS) and doubled E2M1 (MXFP4), each plus 128.
constexpr std::uint8_t kNonLinear[16] = {1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241};
constexpr std::uint8_t kE2M1[16] = {128, 129, 130, 131, 132, 134, 136, 140, 128, 127, 126, 125, 124, 122, 120, 116};

constexpr bool is_super(BlockType type) {
  switch (type) {
    case BlockType::Q2_K: case BlockType::Q3_K: case BlockType::Q4_K: case BlockType::Q5_K: case BlockType::Q6_K:
    case BlockType::IQ4_XS: case BlockType::TQ1_0: case BlockType::TQ2_0: return true;
    default: return false;
  }
}

const std::uint8_t* block_of(BlockType type, const std::uint8_t* row, int group) {
  return row + std::size_t(is_super(type) ? group / kSuperGroups : group) * block_bytes(type);
}

float half_at(const std::uint8_t* bytes) { return float_from_half(load_u16(bytes)); }

void nibbles(const std::uint8_t* from, std::uint8_t* codes) {
  for (int j = 0; j < 16; ++j) codes[j] = from[j] & 15, codes[j + 16] = from[j] >> 4;
}

void fifth_bits(const std::uint8_t* bits, std::uint8_t* codes) {
  std::uint32_t word;
  std::memcpy(&word, bits, 4);
  for (int j = 0; j < 32; ++j) codes[j] |= ((word >> j) & 1u) << 4;
}

void bit_pairs(const std::uint8_t* from, int sub, std::uint8_t* codes) {  // Q2_K, Q3_K, TQ2_0
  const std::uint8_t* bytes = from + 32 * (sub / 4);
  for (int j = 0; j < 32; ++j) codes[j] = (bytes[j] >> (2 * (sub % 4))) & 3;
}

std::uint8_t base_three_digit(const std::uint8_t* block, int element) {  // TQ1_0
  constexpr std::uint8_t powers[5] = {1, 3, 9, 27, 81};
  int byte, digit;
  if (element < 160) byte = element % 32, digit = element / 32;
  else if (element < 240) byte = 32 + (element - 160) % 16, digit = (element - 160) / 16;
  else byte = 48 + (element - 240) % 4, digit = (element - 240) / 4;
  const std::uint8_t shifted = std::uint8_t(block[byte] * powers[digit]);
  return std::uint8_t((shifted * 3) >> 8);
}

struct SixBits { std::uint8_t scale, minimum; };
SixBits six_bits(const std::uint8_t* s, int j) {  // the 12 bytes of Q4_K and Q5_K
  if (j < 4) return {std::uint8_t(s[j] & 63), std::uint8_t(s[j + 4] & 63)};
  return {std::uint8_t((s[j + 4] & 15) | ((s[j - 4] >> 6) << 4)), std::uint8_t((s[j + 4] >> 4) | ((s[j] >> 6) << 4))};
}

std::int8_t q3_scale(const std::uint8_t* s, int j) {  // the 12 bytes of Q3_K
  const int low = j < 8 ? s[j] & 15 : s[j - 8] >> 4;
  return std::int8_t((low | (((s[8 + j % 4] >> (2 * (j / 4))) & 3) << 4)) - 32);
}

std::int8_t iq4_scale(const std::uint8_t* block, int sub) {
  const int low = (block[4 + sub / 2] >> (4 * (sub % 2))) & 15;
  return std::int8_t((low | (((load_u16(block + 2) >> (2 * sub)) & 3) << 4)) - 32);
}

std::uint16_t mxfp4_scale(std::uint8_t e) {  // 2^(e - 128) as bfloat16: half the scale, for the doubled table
  return e < 2 ? std::uint16_t(0x20 << e) : std::uint16_t((e - 1) << 7);
}

// Where a superblock keeps its half float d (and m, two bytes later).
int super_scale_offset(BlockType type) {
  switch (type) {
    case BlockType::Q2_K: return 80;
    case BlockType::Q3_K: return 108;
    case BlockType::Q6_K: return 208;
    case BlockType::TQ1_0: return 52;
    case BlockType::TQ2_0: return 64;
    default: return 0;  // Q4_K, Q5_K, IQ4_XS
  }
}

// The two bytes of a group's scales as the panel keeps them: [0] for columns 0-15 or the scale, [1] for the rest.
void scale_pair(BlockType type, const std::uint8_t* block, int sub, std::uint8_t* pair) {
  switch (type) {
    case BlockType::Q4_K: case BlockType::Q5_K: {
      const SixBits bits = six_bits(block + 4, sub);
      pair[0] = bits.scale, pair[1] = bits.minimum;
      return;
    }
    case BlockType::Q6_K: std::memcpy(pair, block + 192 + 2 * sub, 2); return;
    case BlockType::Q2_K: std::memcpy(pair, block + 2 * sub, 2); return;
    case BlockType::Q3_K:
      for (int half = 0; half < 2; ++half) pair[half] = std::uint8_t(q3_scale(block + 96, 2 * sub + half));
      return;
    case BlockType::IQ4_XS: pair[0] = pair[1] = std::uint8_t(iq4_scale(block, sub)); return;
    default: return;
  }
}

// Codes [16][32] of a group to the lines of panel.h.
void write_codes(Codes kind, const std::uint8_t (&codes)[kPanelRows][kGroup], std::uint8_t* lines) {
  const auto word = [](const std::uint8_t* from) {
    std::uint32_t value;
    std::memcpy(&value, from, 4);
    return value;
  };
  const auto put = [&](int line, int row, std::uint32_t value) { std::memcpy(lines + kLine * line + 4 * row, &value, 4); };
  for (int r = 0; r < kPanelRows; ++r) {
    const std::uint8_t* c = codes[r];
    std::uint32_t high[2] = {0, 0};
    switch (kind) {
      case Codes::U8:
        for (int j = 0; j < 8; ++j) put(j, r, word(c + 4 * j));
        break;
      case Codes::U2: case Codes::U3:
        for (int j = 0; j < 8; ++j) high[j / 4] |= (word(c + 4 * j) & 0x03030303u) << (2 * (j % 4));
        put(0, r, high[0]), put(1, r, high[1]);
        if (kind == Codes::U3) {
          std::uint32_t bits = 0;
          for (int j = 0; j < 8; ++j) bits |= ((word(c + 4 * j) >> 2) & 0x01010101u) << j;
          put(2, r, bits);
        }
        break;
      default:
        for (int j = 0; j < 4; ++j)
          put(j, r, (word(c + 4 * j) & 0x0f0f0f0fu) | ((word(c + 16 + 4 * j) & 0x0f0f0f0fu) << 4));
        if (kind == Codes::U5) {
          for (int j = 0; j < 8; ++j) high[0] |= ((word(c + 4 * j) >> 4) & 0x01010101u) << j;
          put(4, r, high[0]);
        } else if (kind == Codes::U6) {
          for (int j = 0; j < 8; ++j) high[j / 4] |= ((word(c + 4 * j) >> 4) & 0x03030303u) << (2 * (j % 4));
          put(4, r, high[0]), put(5, r, high[1]);
        }
    }
  }
}

}  // namespace

BlockType block_type(int number) {
  switch (number) {
    case 0: case 1: case 2: case 3: case 6: case 7: case 8: case 10: case 11: case 12: case 13: case 14: case 20:
    case 23: case 30: case 34: case 35: case 39: return BlockType(number);
  }
  throw std::invalid_argument("tensor type " + std::to_string(number) + " is not one that the native core has");
}

int block_elements(BlockType type) {
  if (type == BlockType::F32 || type == BlockType::F16 || type == BlockType::BF16 ||
      type == BlockType::Pairs)
    return 1;
  return is_super(type) ? 256 : 32;
}

int block_bytes(BlockType type) {
  switch (type) {
    case BlockType::F32: return 4;
    case BlockType::F16: case BlockType::BF16: case BlockType::Pairs: return 2;
    case BlockType::Q4_0: case BlockType::IQ4_NL: return 18;
    case BlockType::Q4_1: return 20;
    case BlockType::Q5_0: return 22;
    case BlockType::Q5_1: return 24;
    case BlockType::Q8_0: return 34;
    case BlockType::Q2_K: return 84;
    case BlockType::Q3_K: return 110;
    case BlockType::Q4_K: return 144;
    case BlockType::Q5_K: return 176;
    case BlockType::Q6_K: return 210;
    case BlockType::IQ4_XS: return 136;
    case BlockType::TQ1_0: return 54;
    case BlockType::TQ2_0: return 66;
    case BlockType::MXFP4: return 17;
  }
  return 0;
}

PanelFormat panel_format(BlockType type) {
  switch (type) {
    case BlockType::F32: return {Codes::F32, Scales::None};
    case BlockType::F16: return {Codes::F16, Scales::None};
    case BlockType::BF16: return {Codes::BF16, Scales::None};
    case BlockType::Pairs: return {Codes::Pairs, Scales::None};
    case BlockType::Q4_0: return {Codes::U4, Scales::D, 8};
    case BlockType::Q4_1: return {Codes::U4, Scales::DM};
    case BlockType::Q5_0: return {Codes::U5, Scales::D, 16};
    case BlockType::Q5_1: return {Codes::U5, Scales::DM};
    case BlockType::Q8_0: return {Codes::U8, Scales::D, 128};
    case BlockType::Q2_K: return {Codes::U2, Scales::KDM16};
    case BlockType::Q3_K: return {Codes::U3, Scales::KD16, 4};
    case BlockType::Q4_K: return {Codes::U4, Scales::KDM};
    case BlockType::Q5_K: return {Codes::U5, Scales::KDM};
    case BlockType::Q6_K: return {Codes::U6, Scales::KD16, 32};
    case BlockType::IQ4_NL: return {Codes::Table, Scales::D, 128, kNonLinear};
    case BlockType::IQ4_XS: return {Codes::Table, Scales::KD16, 128, kNonLinear};
    case BlockType::MXFP4: return {Codes::Table, Scales::Bfloat, 128, kE2M1};
    case BlockType::TQ1_0: case BlockType::TQ2_0: return {Codes::U2, Scales::KD, 1};
  }
  return {Codes::F32, Scales::None};
}

void group_codes(BlockType type, const std::uint8_t* row, int group, std::uint8_t* codes) {
  const std::uint8_t* block = block_of(type, row, group);
  const int sub = group % kSuperGroups;
  switch (type) {
    case BlockType::Q4_0: case BlockType::IQ4_NL: return nibbles(block + 2, codes);
    case BlockType::MXFP4: return nibbles(block + 1, codes);
    case BlockType::Q4_1: return nibbles(block + 4, codes);
    case BlockType::Q5_0: nibbles(block + 6, codes); return fifth_bits(block + 2, codes);
    case BlockType::Q5_1: nibbles(block + 8, codes); return fifth_bits(block + 4, codes);
    case BlockType::Q8_0:
      for (int j = 0; j < 32; ++j) codes[j] = block[2 + j] ^ 0x80;
      return;
    case BlockType::Q4_K: case BlockType::Q5_K: {
      const std::uint8_t* quants = block + (type == BlockType::Q4_K ? 16 : 48) + 32 * (sub / 2);
      for (int j = 0; j < 32; ++j) codes[j] = sub % 2 ? quants[j] >> 4 : quants[j] & 15;
      if (type == BlockType::Q5_K)
        for (int j = 0; j < 32; ++j) codes[j] |= ((block[16 + j] >> sub) & 1) << 4;
      return;
    }
    case BlockType::Q6_K: {
      const std::uint8_t* low = block + 64 * (sub / 4) + 32 * (sub % 2);
      const std::uint8_t* high = block + 128 + 32 * (sub / 4);
      const int part = sub % 4;
      for (int j = 0; j < 32; ++j)
        codes[j] = std::uint8_t((part < 2 ? low[j] & 15 : low[j] >> 4) | (((high[j] >> (2 * part)) & 3) << 4));
      return;
    }
    case BlockType::Q2_K: return bit_pairs(block + 16, sub, codes);
    case BlockType::TQ2_0: return bit_pairs(block, sub, codes);
    case BlockType::Q3_K:
      bit_pairs(block + 32, sub, codes);
      for (int j = 0; j < 32; ++j) codes[j] |= ((block[j] >> sub) & 1) << 2;
      return;
    case BlockType::IQ4_XS: return nibbles(block + 8 + 16 * sub, codes);
    case BlockType::TQ1_0:
      for (int j = 0; j < 32; ++j) codes[j] = base_three_digit(block, 32 * sub + j);
      return;
    default: return;
  }
}

GroupScales group_scales(BlockType type, const std::uint8_t* row, int group) {
  const std::uint8_t* block = block_of(type, row, group);
  const PanelFormat format = panel_format(type);
  const float d = type == BlockType::MXFP4 ? float_from_bfloat(mxfp4_scale(block[0]))
                                           : half_at(block + super_scale_offset(type));
  std::uint8_t pair[2] = {0, 0};
  scale_pair(type, block, group % kSuperGroups, pair);
  switch (format.scales) {
    case Scales::DM: {
      const float m = half_at(block + 2);
      return {{d, d}, {m, m}};
    }
    case Scales::KDM: {
      const float scale = d * pair[0], minimum = -(half_at(block + 2) * pair[1]);
      return {{scale, scale}, {minimum, minimum}};
    }
    case Scales::KD16: return {{d * std::int8_t(pair[0]), d * std::int8_t(pair[1])}, {0, 0}};
    case Scales::KDM16: {
      const float m = half_at(block + super_scale_offset(type) + 2);
      return {{d * (pair[0] & 15), d * (pair[1] & 15)}, {-(m * (pair[0] >> 4)), -(m * (pair[1] >> 4))}};
    }
    default: return {{d, d}, {0, 0}};
  }
}

void write_scales(BlockType type, const std::uint8_t* row, int group, int panel_row, std::uint8_t* scale_area) {
  const Scales scales = panel_format(type).scales;
  const std::uint8_t* block = block_of(type, row, group);
  const int sub = group % kSuperGroups;
  const std::size_t super_size = super_bytes(scales) + kSuperGroups * group_scale_bytes(scales);
  std::uint8_t* super = scale_area + (super_bytes(scales) ? group / kSuperGroups * super_size : 0);
  std::uint8_t* at = super_bytes(scales) ? super + super_bytes(scales) + sub * group_scale_bytes(scales)
                                         : scale_area + group * group_scale_bytes(scales);
  if (super_bytes(scales) && sub == 0) {
    const std::uint8_t* d = block + super_scale_offset(type);
    std::memcpy(super + 2 * panel_row, d, 2);
    if (super_bytes(scales) == 64) std::memcpy(super + 32 + 2 * panel_row, d + 2, 2);
  }
  if (scales == Scales::D || scales == Scales::DM) std::memcpy(at + 2 * panel_row, block, 2);
  if (scales == Scales::DM) std::memcpy(at + 32 + 2 * panel_row, block + 2, 2);
  if (scales == Scales::Bfloat) {
    const std::uint16_t value = mxfp4_scale(block[0]);
    std::memcpy(at + 2 * panel_row, &value, 2);
  }
  if (scales == Scales::KDM || scales == Scales::KD16 || scales == Scales::KDM16) {
    std::uint8_t pair[2] = {};
    scale_pair(type, block, sub, pair);
    at[panel_row] = pair[0], at[16 + panel_row] = pair[1];
  }
}

void dequantize_row(BlockType type, const std::uint8_t* row, int columns, float* out) {
  const PanelFormat format = panel_format(type);
  if (format.is_float()) {
    for (int i = 0; i < columns; ++i) {
      if (type == BlockType::F32) std::memcpy(out + i, row + 4 * std::size_t(i), 4);
      else if (type == BlockType::F16) out[i] = float_from_half(load_u16(row + 2 * std::size_t(i)));
      else out[i] = float_from_bfloat(load_u16(row + 2 * std::size_t(i)));
    }
    return;
  }
  std::uint8_t codes[kGroup];
  for (int group = 0; group < columns / kGroup; ++group) {
    group_codes(type, row, group, codes);
    const GroupScales scales = group_scales(type, row, group);
    for (int j = 0; j < kGroup; ++j) {
      const int value = format.table ? int(format.table[codes[j]]) - 128 : int(codes[j]) - int(format.zero);
      out[group * kGroup + j] = scales.scale[j / 16] * float(value) + scales.minimum[j / 16];
    }
  }
}

void pack_panel(BlockType type, const std::uint8_t* first_row, int rows, int columns, std::uint8_t* panel) {
  const PanelFormat format = panel_format(type);
  const std::size_t stride = row_bytes(type, columns);
  if (format.is_float()) {
    const std::size_t size = block_bytes(type);
    const int together = type == BlockType::Pairs ? 2 : 1;  // columns
    for (int r = 0; r < rows; ++r)
      for (int column = 0; column < columns; ++column) {
        const std::size_t at = (std::size_t(column / together) * kPanelRows + r) * together + column % together;
        std::memcpy(panel + at * size, first_row + stride * r + size * column, size);
      }
    return;
  }
  const int groups = columns / kGroup;
  std::uint8_t* lines = panel + scale_area_bytes(format.scales, groups);
  std::uint8_t codes[kPanelRows][kGroup];
  // Rows that do not exist keep scales of 0, so that whatever their codes say is worth nothing.
  std::memset(codes, format.zero, sizeof codes);
  for (int group = 0; group < groups; ++group, lines += code_bytes(format.codes)) {
    for (int r = 0; r < rows; ++r) {
      group_codes(type, first_row + stride * r, group, codes[r]);
      write_scales(type, first_row + stride * r, group, r, panel);
    }
    write_codes(format.codes, codes, lines);
  }
}

void pack_planes(const std::uint8_t* first_row, int rows, int columns, std::uint8_t* panel, std::uint8_t* lower) {
  const std::size_t stride = row_bytes(BlockType::Q8_0, columns);
  const int groups = columns / kGroup;
  std::uint8_t* upper = panel + scale_area_bytes(Scales::D, groups);
  std::uint8_t codes[kPanelRows][kGroup], high[kPanelRows][kGroup];
  std::memset(codes, 128, sizeof codes);
  for (int group = 0; group < groups; ++group) {
    for (int r = 0; r < rows; ++r) {
      group_codes(BlockType::Q8_0, first_row + stride * r, group, codes[r]);
      write_scales(BlockType::Q8_0, first_row + stride * r, group, r, panel);
    }
    for (int r = 0; r < kPanelRows; ++r)
      for (int c = 0; c < kGroup; ++c) high[r][c] = codes[r][c] >> 4;
    write_codes(Codes::Upper, high, upper + code_bytes(Codes::Upper) * group);
    write_codes(Codes::Upper, codes, lower + code_bytes(Codes::Upper) * group);  // which takes the lower nibbles
  }
}

}  // namespace octavo
