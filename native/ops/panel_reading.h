// Reading panels: a group's codes and scales from memory into registers, for each of the formats of panel.h.
//
// Included by ops/panel_products.h after a vector_*.h; everything here has internal linkage.
#pragma once
#include "ops/panel.h"

namespace octavo {
namespace {

// Line j of a group's codes: inputs 4 j to 4 j + 3 of 16 rows.
template <Codes kind, int j>
OCTAVO_LINE B unpack_line(const std::uint8_t* lines, [[maybe_unused]] const std::uint8_t* table) {
  if constexpr (kind == Codes::U8) return wide(load_line(lines + kLine * j));
  if constexpr (kind == Codes::U2 || kind == Codes::U3) {
    const B pairs = mask_bytes<3>(move_bits<2 * (j % 4), 0>(load_line(lines + kLine * (j / 4))));
    if constexpr (kind == Codes::U2) return pairs;
    return pairs | mask_bytes<4>(move_bits<j, 2>(load_line(lines + 2 * kLine)));
  }
  const B nibbles = mask_bytes<15>(move_bits<j < 4 ? 0 : 4, 0>(load_line(lines + kLine * (j % 4))));
  if constexpr (kind == Codes::Table) return wide(look_up(table, nibbles));
  if constexpr (kind == Codes::U5) return nibbles | mask_bytes<16>(move_bits<j, 4>(load_line(lines + 4 * kLine)));
  if constexpr (kind == Codes::U6)
    return nibbles | mask_bytes<48>(move_bits<2 * (j % 4), 4>(load_line(lines + (4 + j / 4) * kLine)));
  return nibbles;
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

constexpr std::size_t kLeastAhead = 16384;  // bytes that memory is asked for ahead; past the end of a matrix that is ignored

// What memory is asked for meanwhile: for each group `share` bytes of one linear stream; `fixed` where it is always so many.
template <std::size_t fixed = 0>
struct Lookahead {
  const std::uint8_t* from;
  std::size_t share;

  __attribute__((always_inline)) void ask(int group) const {  // see prefetch()
    const std::size_t bytes = fixed ? fixed : share;
    for (std::size_t line = 0; line < bytes; line += kLine) prefetch(from + bytes * group + line);
  }
};

// A panel's groups, as they lie in memory.
template <Codes kind, Scales scales>
struct Panel {
  const std::uint8_t* scale_area;
  const std::uint8_t* codes;
  const std::uint8_t* table;

  Panel(const PanelMatrix& matrix, const std::uint8_t* panel)
      : scale_area(panel), codes(panel + matrix.scale_bytes()), table(matrix.format.table) {}

  template <int j>
  __attribute__((always_inline)) B line(int group) const {
    return unpack_line<kind, j>(codes + code_bytes(kind) * group, table);
  }
  GroupScale scale(int group) const {
    constexpr std::size_t each = group_scale_bytes(scales), before = super_bytes(scales);
    if constexpr (before == 0) return load_scales<scales>(scale_area, scale_area + each * group);
    const std::uint8_t* super = scale_area + (before + each * kSuperGroups) * (group / kSuperGroups);
    return load_scales<scales>(super, super + before + each * (group % kSuperGroups));
  }
  static constexpr std::size_t kGroupBytes =
      code_bytes(kind) + group_scale_bytes(scales) + super_bytes(scales) / kSuperGroups;
};

// A panel of a U8 matrix whose nibbles lie in two places.
struct JoinedPanel {
  const std::uint8_t *scale_area, *upper, *lower;

  template <int j>
  __attribute__((always_inline)) B line(int group) const {
    const std::size_t at = code_bytes(Codes::Upper) * group + kLine * (j % 4);
    const B high = load_line(upper + at), low = load_line(lower + at);
    if constexpr (j < 4) return wide(move_bits<0, 4>(mask_bytes<15>(high)) | mask_bytes<15>(low));
    return wide(mask_bytes<240>(high) | mask_bytes<15>(move_bits<4, 0>(low)));
  }
  GroupScale scale(int group) const {
    return load_scales<Scales::D>(scale_area, scale_area + group_scale_bytes(Scales::D) * group);
  }
};

// What a Lookahead does, for a panel that lies elsewhere.
struct JoinedLookahead {
  const JoinedPanel& panel;

  __attribute__((always_inline)) void ask(int group) const {
    for (std::size_t line = 0; line < code_bytes(Codes::Upper); line += kLine) {
      prefetch(panel.upper + code_bytes(Codes::Upper) * group + line);
      prefetch(panel.lower + code_bytes(Codes::Upper) * group + line);
    }
    prefetch(panel.scale_area + group_scale_bytes(Scales::D) * group);
  }
};

}  // namespace
}  // namespace octavo
