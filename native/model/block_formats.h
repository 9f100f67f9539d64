// The block formats of GGUF files (ggml's names), read one group of 32 columns at a time.
#pragma once
#include <cstddef>
#include <cstdint>

#include "ops/panel.h"

namespace octavo {

// ggml's numbers, and one that no file has: bfloat16 as the products of some processors want it (Codes::Pairs).
enum class BlockType : int {
  F32 = 0, F16 = 1, Q4_0 = 2, Q4_1 = 3, Q5_0 = 6, Q5_1 = 7, Q8_0 = 8, Q2_K = 10, Q3_K = 11, Q4_K = 12, Q5_K = 13,
  Q6_K = 14, IQ4_NL = 20, IQ4_XS = 23, BF16 = 30, TQ1_0 = 34, TQ2_0 = 35, MXFP4 = 39,
  Pairs = 1000,
};

// Throws std::invalid_argument for a number that is none of the above.
BlockType block_type(int number);
int block_elements(BlockType type);
int block_bytes(BlockType type);
PanelFormat panel_format(BlockType type);

inline std::size_t row_bytes(BlockType type, int columns) {
  return std::size_t(columns) / block_elements(type) * block_bytes(type);
}

// Codes of columns [32 group, 32 group + 32) of a row, as in panel.h: unsigned, the value 0 being format.zero.
void group_codes(BlockType type, const std::uint8_t* row, int group, std::uint8_t* codes);

// value = scale[half] * (code - zero, or the table's value) + minimum[half], for columns 0-15 and 16-31 of a group.
struct GroupScales {
  float scale[2];
  float minimum[2];
};
GroupScales group_scales(BlockType type, const std::uint8_t* row, int group);

// Writes one row's scales of a group into a panel's scale area (see panel.h).
void write_scales(BlockType type, const std::uint8_t* row, int group, int panel_row, std::uint8_t* scale_area);

// out[columns] = the row's values in float32: what the numpy dequantizers give.
void dequantize_row(BlockType type, const std::uint8_t* row, int columns, float* out);

// Fills one panel from up to 16 rows of a matrix; `rows` counts those that exist.
void pack_panel(BlockType type, const std::uint8_t* first_row, int rows, int columns, std::uint8_t* panel);

// As pack_panel for Q8_0, in two places: a panel of Codes::Upper, and the lines of the lower nibbles.
void pack_planes(const std::uint8_t* first_row, int rows, int columns, std::uint8_t* panel, std::uint8_t* lower);

}  // namespace octavo
