// A block of 4-bit codes has 16 values: they are computed (and rounded) once, and codes only look them up.
#include "model/unpack.h"

#include <bit>
#include <cstring>

#include "ops/training.h"
#include "support/half.h"

namespace octavo {
namespace {

inline std::uint16_t rounded(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return std::uint16_t((bits >> 16) | 0x40u);  // NaN
  return std::uint16_t((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// Q4_0 and Q4_1: byte j has element j in its low and element j + 16 in its high half.
void unpack_nibbles(const std::uint8_t* codes, const std::uint16_t (&values)[16], std::uint16_t* out) {
  for (int j = 0; j < 16; ++j) {
    out[j] = values[codes[j] & 15];
    out[j + 16] = values[codes[j] >> 4];
  }
}

void unpack_q4(BlockType type, const std::uint8_t* row, int columns, std::uint16_t* out) {
  const int bytes = block_bytes(type);
  const bool has_minimum = type == BlockType::Q4_1;
  for (int column = 0; column < columns; column += 32, row += bytes) {
    const float scale = float_from_half(load_u16(row));
    const float minimum = has_minimum ? float_from_half(load_u16(row + 2)) : 0.0f;
    std::uint16_t values[16];
    for (int code = 0; code < 16; ++code)
      values[code] = rounded(has_minimum ? scale * float(code) + minimum : scale * float(code - 8));
    unpack_nibbles(row + (has_minimum ? 4 : 2), values, out + column);
  }
}

inline void set(std::uint16_t& out, float value) { out = rounded(value); }
inline void set(float& out, float value) { out = value; }

template <class Number>
void unpack_nf4_blocks(const std::uint8_t* codes, const float* absmax, std::size_t begin, std::size_t end, Number* out) {
  for (std::size_t block = begin; block < end; ++block) {
    Number values[16];
    for (int code = 0; code < 16; ++code) set(values[code], kNf4Levels[code] * absmax[block]);
    const std::uint8_t* in = codes + block * (kNf4Block / 2);
    Number* to = out + block * kNf4Block;
    for (int i = 0; i < kNf4Block / 2; ++i) {
      to[2 * i] = values[in[i] >> 4];
      to[2 * i + 1] = values[in[i] & 15];
    }
  }
}

}  // namespace

void unpack_nf4(const std::uint8_t* codes, const float* absmax, std::size_t begin, std::size_t end, std::uint16_t* out) {
  unpack_nf4_blocks(codes, absmax, begin, end, out);
}

void unpack_nf4(const std::uint8_t* codes, const float* absmax, std::size_t begin, std::size_t end, float* out) {
  unpack_nf4_blocks(codes, absmax, begin, end, out);
}

void unpack_row(BlockType type, const std::uint8_t* row, int columns, float* scratch, std::uint16_t* out) {
  if (type == BlockType::Q4_0 || type == BlockType::Q4_1) return unpack_q4(type, row, columns, out);
  if (type == BlockType::BF16) {
    std::memcpy(out, row, std::size_t(columns) * 2);
    return;
  }
  dequantize_row(type, row, columns, scratch);
  for (int i = 0; i < columns; ++i) out[i] = rounded(scratch[i]);
}

}  // namespace octavo
