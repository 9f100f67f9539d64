// From packed weights to bfloat16 or float32, for training over a frozen quantized base (src/octavo/adapters/qlora.py).
#pragma once
#include <cstddef>
#include <cstdint>

#include "model/block_formats.h"

namespace octavo {

constexpr int kNf4Block = 64;  // elements that share a scale

// Blocks [begin, end) of an NF4 matrix: out[i] = level[code i] * absmax[i / 64], for bfloat16 rounded to the nearest
// even.  The first of two codes is in a byte's high half (bitsandbytes).
void unpack_nf4(const std::uint8_t* codes, const float* absmax, std::size_t begin, std::size_t end, std::uint16_t* out);
void unpack_nf4(const std::uint8_t* codes, const float* absmax, std::size_t begin, std::size_t end, float* out);

// One row of a GGUF format: dequantize_row, rounded.  `scratch` holds `columns` floats.
void unpack_row(BlockType type, const std::uint8_t* row, int columns, float* scratch, std::uint16_t* out);

}  // namespace octavo
