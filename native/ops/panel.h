// The one family of weight layouts that every kernel reads: panels of 16 rows.
//
// A matrix [rows, columns] is cut into panels of 16 rows, the last filled up with zeros.  Along a panel the columns
// are cut into groups of 32.  A group's codes are lines of 64 bytes; line j holds, for each of the 16 rows, the codes
// of four neighbouring columns: byte 4 r + t is row r, column 4 j + t.  One line is one AVX-512 register, two of AVX2
// or four of NEON, and in each a 32-bit lane is a row: sums need no shuffling across lanes.
//
//   codes  lines in a group, in order
//   U4     4 lines; the low nibbles are lines 0-3 (columns 0-15), the high nibbles lines 4-7 (columns 16-31)
//   U5     the 4 lines of U4, then one whose bit i is the fifth bit of line i
//   U6     the 4 lines of U4, then two whose bit pair i is the upper two bits of line i (first) and 4 + i (second)
//   U8     8 lines
//   Upper  as U4, the upper nibbles of U8; the lower ones lie elsewhere, in lines of their own (see Refinement)
//   U2     2 lines; bit pair i of the first is line i, of the second line 4 + i
//   U3     the 2 lines of U2, then one whose bit i is the third bit of line i
//   Table  as U4, and a nibble is an index into 16 values
//
// A panel is its scales first, filled up to whole lines, then its codes: two linear streams, every line aligned.
// A superblock is 8 groups, 256 columns; d and m are half floats, one a row, as in the GGUF file: nothing is rounded.
//
//   scales   for each group (16 values each)         for each superblock, before its groups   value of a code c
//   D        d                                                                                d (c - zero)
//   Bfloat   d as bfloat16 (MXFP4's powers of two)                                            d (c - zero)
//   DM       d, m                                                                             d c + m
//   KDM      u8 s, u8 n                              d, m                                     d s c - m n
//   KD16     int8 s of columns 0-15, of 16-31        d                                        d s (c - zero)
//   KDM16    for each half a byte, s low, n high     d, m                                     d s c - m n
//   KD                                               d                                        d (c - zero)
//
// Floats (F32, F16, BF16) are panels too: for each column the 16 rows' values side by side.  Pairs are bfloat16 numbers,
// and a line is two neighbouring columns: for each of the 16 rows its two values.
#pragma once
#include <cstddef>
#include <cstdint>

// Always inlined: a copy that the linker kept from a file compiled for AVX-512 would stop an older processor.
#define OCTAVO_INLINE inline __attribute__((always_inline))

namespace octavo {

constexpr int kPanelRows = 16;
constexpr int kGroup = 32;
constexpr int kSuperGroups = 8;
constexpr int kLine = 64;

enum class Codes : std::uint8_t { U4, U5, U6, U8, Upper, U2, U3, Table, F32, F16, BF16, Pairs };
enum class Scales : std::uint8_t { D, Bfloat, DM, KDM, KD16, KDM16, KD, None };

struct PanelFormat {
  Codes codes;
  Scales scales;
  std::uint8_t zero = 0;                // what a code of the value 0 is; 128 for U8 and Table
  const std::uint8_t* table = nullptr;  // for Codes::Table: 16 values, each plus 128

  OCTAVO_INLINE bool is_float() const { return scales == Scales::None; }
};

OCTAVO_INLINE constexpr std::size_t code_bytes(Codes codes) {  // of a group of 16 x 32
  switch (codes) {
    case Codes::U2: return 128;
    case Codes::U3: return 192;
    case Codes::U4:
    case Codes::Upper:
    case Codes::Table: return 256;
    case Codes::U5: return 320;
    case Codes::U6: return 384;
    case Codes::U8: return 512;
    case Codes::F16:
    case Codes::BF16:
    case Codes::Pairs: return 1024;
    case Codes::F32: return 2048;
  }
  return 0;
}

OCTAVO_INLINE constexpr std::size_t super_bytes(Scales scales) {  // before the groups of a superblock
  switch (scales) {
    case Scales::KDM:
    case Scales::KDM16: return 64;
    case Scales::KD16:
    case Scales::KD: return 32;
    default: return 0;
  }
}

OCTAVO_INLINE constexpr std::size_t group_scale_bytes(Scales scales) {
  switch (scales) {
    case Scales::D:
    case Scales::Bfloat: return 32;
    case Scales::DM: return 64;
    case Scales::KDM:
    case Scales::KD16:
    case Scales::KDM16: return 32;
    default: return 0;
  }
}

OCTAVO_INLINE constexpr std::size_t scale_area_bytes(Scales scales, int groups) {
  const std::size_t supers = (groups + kSuperGroups - 1) / kSuperGroups;
  const std::size_t bytes = supers * super_bytes(scales) + groups * group_scale_bytes(scales);
  return (bytes + kLine - 1) / kLine * kLine;
}

// A matrix in panels.  Owns nothing; the memory belongs to the model.
struct PanelMatrix {
  PanelFormat format;
  int rows = 0;
  int columns = 0;
  const std::uint8_t* data = nullptr;

  OCTAVO_INLINE int panels() const { return (rows + kPanelRows - 1) / kPanelRows; }
  OCTAVO_INLINE int groups() const { return (columns + kGroup - 1) / kGroup; }
  OCTAVO_INLINE std::size_t scale_bytes() const { return scale_area_bytes(format.scales, groups()); }
  OCTAVO_INLINE std::size_t panel_bytes() const {
    if (format.is_float()) return code_bytes(format.codes) / kGroup * columns;
    return scale_bytes() + code_bytes(format.codes) * groups();
  }
};

// What a matmul multiplies with, quantized to int8: 32 inputs of one token, on a cache line of their own, so that
// threads that quantize neighbouring tokens do not disturb each other.  value = scale * code.
// The integer starts, -128 times the sum of the codes of all columns, of 0-15 and of 16-31, turn a sum of c * a into
// one of (c - zero) * a, exactly.
struct alignas(kLine) QuantizedGroup {
  std::int8_t codes[kGroup];
  float scale;
  float sum;  // of the codes
  std::int32_t start;
  std::int32_t start_half[2];
  std::int32_t has_rest;
};
static_assert(sizeof(QuantizedGroup) == kLine);

// Tokens that share a pass over the weights.
constexpr int kTile = 4;

// Tokens in a tile's memory: one alone lies close together.  most: how many an instruction set likes best.
OCTAVO_INLINE constexpr int tile_width(int tokens, int most) {
  return tokens == 1 || most == 1 ? 1 : tokens <= kTile ? kTile : most;
}

// A tile of `width` tokens is, for each group, QuantizedGroup [2][width]: the tokens' values, and what rounding left of
// them, quantized again, for the groups whose scale stands out in their token's row (has_rest).  A few groups hold a
// row's outliers and with them most of its rounding error: see quantize in rows.h.
OCTAVO_INLINE constexpr std::size_t record_bytes(int width) { return 2 * sizeof(QuantizedGroup) * width; }
OCTAVO_INLINE constexpr std::size_t quantized_tile_bytes(std::size_t columns, int width) {
  return (columns + kGroup - 1) / kGroup * record_bytes(width);
}

}  // namespace octavo
