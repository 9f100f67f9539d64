// The matmul of many tokens on the processor's matrix unit (Intel AMX): 16 tokens by 16 rows by 32 columns at once.
//
// A line of a panel, four columns of 16 rows, is a row of a tile as the unit takes it, and 16 tokens' records are a tile
// of activations.  The unit sums products of codes in 32-bit integers, exactly; what a sum stands for is added by the
// operations of panel_products.h in their order, so the results are the same bits.
//
// Included by isa/amx.cpp after a vector_*.h; everything here has internal linkage.
#pragma once
#include <cstring>

#include "isa/tile_shapes.h"
#include "ops/matmul.h"

namespace octavo {
namespace {

constexpr int kUnitTokens = 16;  // of a tile
// What is multiplied together, so that codes stay in the first cache and activations in the second: 4 panels' codes of
// 8 groups are unpacked, and multiplied by 128 tokens.
constexpr int kUnitPanels = 4, kUnitGroups = 8, kUnitStretch = 128;
constexpr int kUnitTiles = kUnitStretch / kUnitTokens;
constexpr int kMostGroups = 2048;  // of a matrix that is multiplied so
constexpr int kLeastTokens = 2 * kUnitTokens;  // for fewer, unpacking codes to memory takes longer than it saves

// --- quantized matrices ----------------------------------------------------------------------------------------------
// Tiles: 0 sums of a whole group, or of its columns 0 to 15, and 1 of columns 16 to 31; 2 a group's activations and 3 its
// codes; 4 and 5 activations, 6 and 7 codes of the halves.
constexpr TileShape kGroupShapes[8] = {{}, {}, {kUnitTokens, kGroup}, {kGroup / 4, kLine},
                                       {kUnitTokens, kGroup / 2}, {kUnitTokens, kGroup / 2},
                                       {kGroup / 8, kLine}, {kGroup / 8, kLine}};

// A group of a panel as the unit reads it.
struct alignas(kLine) UnpackedGroup {
  std::uint8_t codes[kGroup / 4][kLine];
  float d[kPanelRows], m[kPanelRows], d1[kPanelRows], m1[kPanelRows];
};

constexpr bool has_offsets(Scales scales) { return has_minimum(scales) || scales == Scales::KDM16; }

template <Codes kind, Scales scales>
void unpack_groups(const Panel<kind, scales>& panel, int begin, int end, UnpackedGroup* to) {
  const Lookahead<Panel<kind, scales>::kGroupBytes> ahead{panel.scale_area + kLeastAhead, 0};
  for (int group = begin; group < end; ++group, ++to) {
    ahead.ask(group);
    for_lines<0, 8>([&]<int j>() __attribute__((always_inline)) {
      _mm512_store_si512(to->codes[j], panel.template line<j>(group).v);
    });
    const GroupScale s = panel.scale(group);
    store(to->d, s.d);
    if constexpr (has_offsets(scales)) store(to->m, s.m);
    if constexpr (in_halves(scales)) store(to->d1, s.d1);
    if constexpr (scales == Scales::KDM16) store(to->m1, s.m1);
  }
  settle_memory();
}

// products = the integer sums of 16 tokens and 16 rows over a group; `second` those of its columns 16 to 31.
template <Scales scales>
inline __attribute__((always_inline)) void multiply_group(const UnpackedGroup& weights, const QuantizedGroup* tokens,
                                                          std::int32_t* products, [[maybe_unused]] std::int32_t* second) {
  _tile_zero(0);
  if constexpr (in_halves(scales)) {
    _tile_zero(1);
    _tile_loadd(4, tokens->codes, sizeof(QuantizedGroup));
    _tile_loadd(6, weights.codes[0], kLine);
    _tile_dpbsud(0, 4, 6);
    _tile_loadd(5, tokens->codes + kGroup / 2, sizeof(QuantizedGroup));
    _tile_loadd(7, weights.codes[kGroup / 8], kLine);
    _tile_dpbsud(1, 5, 7);
    _tile_stored(1, second, kLine);
  } else {
    _tile_loadd(2, tokens->codes, sizeof(QuantizedGroup));
    _tile_loadd(3, weights.codes[0], kLine);
    _tile_dpbsud(0, 2, 3);
  }
  _tile_stored(0, products, kLine);
  settle_memory();
}

// sums[n] += the unpacked groups times token n of a tile, for the first `tokens` of it: 8 or 16.
template <Codes kind, Scales scales, int zero, int tokens>
void add_groups(const UnpackedGroup* weights, int groups, const QuantizedGroup* here, int next, float (*sums)[kPanelRows]) {
  constexpr int start_zero = has_minimum(scales) ? 0 : zero;
  alignas(kLine) std::int32_t products[2][2][kUnitTokens][kPanelRows];
  F acc[tokens];
OCTAVO_UNROLL
  for (int n = 0; n < tokens; ++n) acc[n] = load(sums[n]);
  multiply_group<scales>(*weights, here, products[0][0][0], products[0][1][0]);
  for (int group = 0; group < groups; ++group, ++weights, here += next) {
    // The unit is a group ahead of the vectors: neither waits for the other.
    const auto& sum = products[group % 2];
    if (group + 1 < groups)
      multiply_group<scales>(weights[1], here + next, products[(group + 1) % 2][0][0], products[(group + 1) % 2][1][0]);
    GroupScale scale{load(weights->d), {}, {}, {}};
    if constexpr (has_offsets(scales)) scale.m = load(weights->m);
    if constexpr (in_halves(scales)) scale.d1 = load(weights->d1);
    if constexpr (scales == Scales::KDM16) scale.m1 = load(weights->m1);
OCTAVO_UNROLL
    for (int n = 0; n < tokens; ++n) {
      const QuantizedGroup& token = here[n];
      I first = load_int(sum[0][n]), second{};
      if constexpr (in_halves(scales)) {
        first = first + begin_sum<kind, zero>(token.start_half);
        second = load_int(sum[1][n]) + begin_sum<kind, zero>(token.start_half + 1);
      } else if constexpr (start_zero != 0) {
        first = first + begin_sum<kind, start_zero>(&token.start);
      }
      acc[n] = add_sums<kind, scales>(first, second, scale, token, acc[n]);
    }
  }
OCTAVO_UNROLL
  for (int n = 0; n < tokens; ++n) store(sums[n], acc[n]);
}

// Panels by tiles of 16 tokens; the few that are left over, and steps of few tokens, by the sweep of matmul.h.
struct TiledSweep {
  template <Codes kind, Scales scales, int zero>
  static void run(const MatmulTask& task, int begin, int end) {
    const int left_over = task.tokens % kUnitTokens, tiled = left_over <= kTile ? task.tokens - left_over : task.tokens;
    if (tiled < kLeastTokens || task.matrix.groups() > kMostGroups) return Sweep::run<kind, scales, zero>(task, begin, end);
    const TileShapes shapes(kGroupShapes);
    for (int first = 0; first < tiled; first += kUnitStretch) {
      const int count = std::min(kUnitStretch, tiled - first);
      Rests rests;
      find_rests(task, first, count, rests);
      for (int index = begin; index < end; index += kUnitPanels)
        multiply_stretch<kind, scales, zero>(task, index, std::min(kUnitPanels, end - index), first, count, rests);
    }
    multiply_range<kind, scales, zero>(task, begin, end, tiled, task.tokens);
  }

 private:
  using Rests = std::uint16_t[kUnitTiles][kMostGroups];  // of a tile's tokens, which have one

  static void find_rests(const MatmulTask& task, int first, int count, Rests& rests) {
    for (int n = 0; n < count; n += kUnitTokens) {
      const QuantizedGroup* here = records_of(task, first + n);
      const int tokens = std::min(kUnitTokens, count - n);
      for (int group = 0; group < task.matrix.groups(); ++group, here += 2 * task.width) {
        unsigned which = 0;
        for (int token = 0; token < tokens; ++token) which |= unsigned(here[token].has_rest) << token;
        rests[n / kUnitTokens][group] = std::uint16_t(which);
      }
    }
  }

  // As quantized_tile: of kRestGroups groups the codes, then the rests.
  template <Codes kind, Scales scales, int zero>
  static void multiply_stretch(const MatmulTask& task, int index, int panels, int first, int count, const Rests& rests) {
    const auto panel_of = [&](int p) {
      return Panel<kind, scales>(task.matrix, task.matrix.data + task.matrix.panel_bytes() * (index + p));
    };
    UnpackedGroup unpacked[kUnitPanels][kUnitGroups];
    alignas(kLine) float sums[kUnitPanels][kUnitStretch][kPanelRows];
    for (int p = 0; p < panels; ++p) std::memset(sums[p], 0, sizeof(sums[p]));
    const int groups = task.matrix.groups(), next = 2 * task.width;
    for (int block = 0; block < groups; block += kRestGroups) {
      const int block_end = std::min(block + kRestGroups, groups);
      for (int begin = block; begin < block_end; begin += kUnitGroups) {
        const int some = std::min(kUnitGroups, block_end - begin);
        for (int p = 0; p < panels; ++p) unpack_groups(panel_of(p), begin, begin + some, unpacked[p]);
        for (int n = 0; n < count; n += kUnitTokens) {
          const QuantizedGroup* records = records_of(task, first + n) + std::size_t(next) * begin;
          for (int p = 0; p < panels; ++p) {
            if (count - n > kUnitTokens / 2)
              add_groups<kind, scales, zero, kUnitTokens>(unpacked[p], some, records, next, sums[p] + n);
            else
              add_groups<kind, scales, zero, kUnitTokens / 2>(unpacked[p], some, records, next, sums[p] + n);
          }
        }
      }
      for (int p = 0; p < panels; ++p) add_rests<kind, scales, zero>(task, panel_of(p), block, block_end, first, count, rests, sums[p]);
    }
    for (int p = 0; p < panels; ++p) {
      const int row = (index + p) * kPanelRows;
      const F bias = task.bias ? load(task.bias + row) : zero_lanes();
      for (int n = 0; n < count; ++n)
        store_rows(task.out + task.out_stride * (first + n) + row, load(sums[p][n]) + bias, task.matrix.rows - row);
    }
  }

  template <Codes kind, Scales scales, int zero>
  static void add_rests(const MatmulTask& task, const Panel<kind, scales>& panel, int begin, int end, int first, int count,
                        const Rests& rests, float (*sums)[kPanelRows]) {
    const int next = 2 * task.width;
    for (int group = begin; group < end; ++group) {
      const GroupScale scale[] = {panel.scale(group)};
      const CodesInRegisters<Panel<kind, scales>> codes[] = {{panel, group}};
      for (int n = 0; n < count; n += kUnitTokens) {
        const QuantizedGroup* second = records_of(task, first + n) + std::size_t(next) * group + task.width;
        for (unsigned which = rests[n / kUnitTokens][group]; which != 0; which &= which - 1) {
          const int token = __builtin_ctz(which);
          F sum[1][1] = {{load(sums[n + token])}};
          add_group<kind, scales, zero>(codes, scale, second + token, sum);
          store(sums[n + token], sum[0][0]);
        }
      }
    }
  }
};

// --- encoders' matrices of bfloat16 pairs --------------------------------------------------------------------------
// Tiles: 0 to 3 sums of 32 tokens and two panels, 4 and 5 the tokens' activations, 6 and 7 the panels, 32 columns of each.
// The unit adds the products of even and of odd columns apart, so sums are rounded otherwise than by matmul.h; a token's
// are still the same whatever its company.
constexpr int kPairColumns = 32;

// products [2 panels][32 tokens][16 rows] = the panels at `weights` times the tokens from `first` on.
template <int panels>
inline void multiply_pairs(const MatmulTask& task, const std::uint8_t* weights, int first,
                           float (&products)[2][2 * kUnitTokens][kPanelRows]) {
  const std::size_t row_bytes = task.tile_bytes;  // a tile's width is one token
  const std::uint8_t* rows = task.activations + row_bytes * first;
  const std::uint8_t* next = weights + task.matrix.panel_bytes();
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int column = 0; column < task.matrix.columns; column += kPairColumns) {
    const std::size_t at = std::size_t(column) * 2, panel_at = at * kPanelRows;
    _tile_loadd(6, weights + panel_at, kLine);
    _tile_loadd(4, rows + at, row_bytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(5, rows + row_bytes * kUnitTokens + at, row_bytes);
    _tile_dpbf16ps(1, 5, 6);
    if constexpr (panels == 2) {
      _tile_loadd(7, next + panel_at, kLine);
      _tile_dpbf16ps(2, 4, 7);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, products[0][0], kLine);
  _tile_stored(1, products[0][kUnitTokens], kLine);
  _tile_stored(2, products[1][0], kLine);
  _tile_stored(3, products[1][kUnitTokens], kLine);
  settle_memory();
}

// task.width: 1.  Rows of activations after the last token are read, and their sums are left.
inline void pair_sweep(const MatmulTask& task, int begin, int end) {
  const TileShapes shapes(kWholeTiles);
  alignas(kLine) float products[2][2 * kUnitTokens][kPanelRows];
  for (int first = 0; first < task.tokens; first += 2 * kUnitTokens)
    for (int index = begin; index < end; index += 2) {
      const std::uint8_t* weights = task.matrix.data + task.matrix.panel_bytes() * index;
      const int panels = std::min(2, end - index);
      if (panels == 2) multiply_pairs<2>(task, weights, first, products);
      else multiply_pairs<1>(task, weights, first, products);
      for (int p = 0; p < panels; ++p) {
        const int row = (index + p) * kPanelRows;
        const F bias = task.bias ? load(task.bias + row) : zero_lanes();
        for (int n = 0; n < std::min(2 * kUnitTokens, task.tokens - first); ++n)
          store_rows(task.out + task.out_stride * (first + n) + row, load(products[p][n]) + bias, task.matrix.rows - row);
      }
    }
}

}  // namespace
}  // namespace octavo
