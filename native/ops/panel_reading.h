// Reading panels: a group's codes and scales from memory into registers, for each of the formats of panel.h.
//
// Included by ops/matmul.h after a vector_*.h; everything here has internal linkage.
#pragma once
#include "ops/panel.h"

namespace octavo {
namespace {

template <Codes kind>
inline void unpack(const std::uint8_t* lines, [[maybe_unused]] const std::uint8_t* table, B (&q)[8]) {
  if constexpr (kind == Codes::U8) {
OCTAVO_UNROLL
    for (int j = 0; j < 8; ++j) q[j] = load_line(lines + kLine * j);
  } else if constexpr (kind == Codes::U2 || kind == Codes::U3) {
    for (int half = 0; half < 2; ++half) {
      const B pairs = load_line(lines + kLine * half);
      q[4 * half + 0] = mask_bytes<3>(pairs);
      q[4 * half + 1] = mask_bytes<3>(move_bits<2, 0>(pairs));
      q[4 * half + 2] = mask_bytes<3>(move_bits<4, 0>(pairs));
      q[4 * half + 3] = mask_bytes<3>(move_bits<6, 0>(pairs));
    }
    if constexpr (kind == Codes::U3) {
      const B bits = load_line(lines + 2 * kLine);
      q[0] = q[0] | mask_bytes<4>(move_bits<0, 2>(bits));
      q[1] = q[1] | mask_bytes<4>(move_bits<1, 2>(bits));
      q[2] = q[2] | mask_bytes<4>(bits);
      q[3] = q[3] | mask_bytes<4>(move_bits<3, 2>(bits));
      q[4] = q[4] | mask_bytes<4>(move_bits<4, 2>(bits));
      q[5] = q[5] | mask_bytes<4>(move_bits<5, 2>(bits));
      q[6] = q[6] | mask_bytes<4>(move_bits<6, 2>(bits));
      q[7] = q[7] | mask_bytes<4>(move_bits<7, 2>(bits));
    }
  } else {
OCTAVO_UNROLL
    for (int j = 0; j < 4; ++j) {
      const B both = load_line(lines + kLine * j);
      q[j] = mask_bytes<15>(both);
      q[j + 4] = mask_bytes<15>(move_bits<4, 0>(both));
    }
    if constexpr (kind == Codes::Table)
OCTAVO_UNROLL
      for (int j = 0; j < 8; ++j) q[j] = look_up(table, q[j]);
    if constexpr (kind == Codes::U5) {
      const B bits = load_line(lines + 4 * kLine);
      q[0] = q[0] | mask_bytes<16>(move_bits<0, 4>(bits));
      q[1] = q[1] | mask_bytes<16>(move_bits<1, 4>(bits));
      q[2] = q[2] | mask_bytes<16>(move_bits<2, 4>(bits));
      q[3] = q[3] | mask_bytes<16>(move_bits<3, 4>(bits));
      q[4] = q[4] | mask_bytes<16>(bits);
      q[5] = q[5] | mask_bytes<16>(move_bits<5, 4>(bits));
      q[6] = q[6] | mask_bytes<16>(move_bits<6, 4>(bits));
      q[7] = q[7] | mask_bytes<16>(move_bits<7, 4>(bits));
    }
    if constexpr (kind == Codes::U6) {
      for (int half = 0; half < 2; ++half) {
        const B pairs = load_line(lines + (4 + half) * kLine);
        q[4 * half + 0] = q[4 * half + 0] | mask_bytes<48>(move_bits<0, 4>(pairs));
        q[4 * half + 1] = q[4 * half + 1] | mask_bytes<48>(move_bits<2, 4>(pairs));
        q[4 * half + 2] = q[4 * half + 2] | mask_bytes<48>(pairs);
        q[4 * half + 3] = q[4 * half + 3] | mask_bytes<48>(move_bits<6, 4>(pairs));
      }
    }
  }
  if constexpr (kind == Codes::U8 || kind == Codes::Table)
OCTAVO_UNROLL
    for (int j = 0; j < 8; ++j) q[j] = wide(q[j]);
}

// The scales of a group, as vectors over the 16 rows; only those that `scales` has are set.
struct GroupScale {
  F d, m;    // of the group, or of its columns 0-15
  F d1, m1;  // of its columns 16-31
};

template <Scales scales>
inline GroupScale load_scales(const std::uint8_t* super, const std::uint8_t* group) {
  GroupScale s;
  const auto half_floats = [](const std::uint8_t* at) { return load_half((const std::uint16_t*)at); };
  if constexpr (scales == Scales::D) s.d = half_floats(group);
  if constexpr (scales == Scales::Bfloat) s.d = load_bfloat((const std::uint16_t*)group);
  if constexpr (scales == Scales::KD) s.d = half_floats(super);
  if constexpr (scales == Scales::DM) {
    s.d = half_floats(group);
    s.m = half_floats(group + 32);
  }
  if constexpr (scales == Scales::KDM) {
    s.d = half_floats(super) * load_unsigned_bytes(group);
    s.m = zero_minus(half_floats(super + 32) * load_unsigned_bytes(group + 16));
  }
  if constexpr (scales == Scales::KD16) {
    s.d = half_floats(super) * load_signed_bytes((const std::int8_t*)group);
    s.d1 = half_floats(super) * load_signed_bytes((const std::int8_t*)group + 16);
  }
  if constexpr (scales == Scales::KDM16) {
    const F d = half_floats(super), m = zero_minus(half_floats(super + 32));
    s.d = d * load_low_nibbles(group);
    s.d1 = d * load_low_nibbles(group + 16);
    s.m = m * load_high_nibbles(group);
    s.m1 = m * load_high_nibbles(group + 16);
  }
  return s;
}

// A panel's groups, as they lie in memory.
template <Codes kind, Scales scales>
struct Panel {
  const std::uint8_t* scale_area;
  const std::uint8_t* codes;
  const std::uint8_t* ahead;
  const std::uint8_t* table;

  // distance: bytes from what is read to what memory is asked for meanwhile.
  Panel(const PanelMatrix& matrix, const std::uint8_t* panel, std::size_t distance)
      : scale_area(panel), codes(panel + matrix.scale_bytes()), ahead(panel + distance), table(matrix.format.table) {}

  void read(int group, B (&q)[8]) const { unpack<kind>(codes + code_bytes(kind) * group, table, q); }
  GroupScale scale(int group) const {
    constexpr std::size_t each = group_scale_bytes(scales), before = super_bytes(scales);
    if constexpr (before == 0) return load_scales<scales>(scale_area, scale_area + each * group);
    const std::uint8_t* super = scale_area + (before + each * kSuperGroups) * (group / kSuperGroups);
    return load_scales<scales>(super, super + before + each * (group % kSuperGroups));
  }
  // The panel is one linear stream, whatever part of it is read now.
  __attribute__((always_inline)) void ask_ahead(int group) const {  // see prefetch()
    constexpr std::size_t bytes = code_bytes(kind) + group_scale_bytes(scales) + super_bytes(scales) / kSuperGroups;
    for (std::size_t line = 0; line < bytes; line += kLine) prefetch(ahead + bytes * group + line);
  }
};

// A panel of a U8 matrix whose nibbles lie in two places.
struct JoinedPanel {
  const std::uint8_t *scale_area, *upper, *lower;

  void read(int group, B (&q)[8]) const {
OCTAVO_UNROLL
    for (int j = 0; j < 4; ++j) {
      const B high = load_line(upper + code_bytes(Codes::Upper) * group + kLine * j);
      const B low = load_line(lower + code_bytes(Codes::Upper) * group + kLine * j);
      q[j] = wide(move_bits<0, 4>(mask_bytes<15>(high)) | mask_bytes<15>(low));
      q[j + 4] = wide(mask_bytes<240>(high) | mask_bytes<15>(move_bits<4, 0>(low)));
    }
  }
  GroupScale scale(int group) const {
    return load_scales<Scales::D>(scale_area, scale_area + group_scale_bytes(Scales::D) * group);
  }
  void ask_ahead(int) const {}
};

}  // namespace
}  // namespace octavo
