// The tiles of Intel's matrix unit (AMX): eight registers of up to 16 rows of 64 bytes, shaped by a description.
// Everything here has internal linkage.
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace octavo {
namespace {

struct TileShape {
  int rows = 16, bytes = 64;
};

constexpr TileShape kWholeTiles[8] = {};

// The compiler does not know what tiles read and write: what was written before must be in memory, and read after.
inline __attribute__((always_inline)) void settle_memory() { asm volatile("" ::: "memory"); }

// The shapes of a thread's tiles while this lives: whatever else uses them sets them for itself.
class TileShapes {
 public:
  explicit TileShapes(const TileShape (&shapes)[8]) {
    alignas(64) Description description{};
    description.palette = 1;
    for (int tile = 0; tile < 8; ++tile) {
      description.rows[tile] = std::uint8_t(shapes[tile].rows);
      description.bytes[tile] = std::uint16_t(shapes[tile].bytes);
    }
    asm volatile("" ::"r"(&description) : "memory");  // the intrinsic claims to read its first bytes only
    _tile_loadconfig(&description);
  }
  ~TileShapes() { _tile_release(); }
  TileShapes(const TileShapes&) = delete;
  TileShapes& operator=(const TileShapes&) = delete;

 private:
  struct Description {
    std::uint8_t palette, first_row, reserved[14];
    std::uint16_t bytes[16];
    std::uint8_t rows[16];
  };
  static_assert(sizeof(Description) == 64);
};

}  // namespace
}  // namespace octavo
