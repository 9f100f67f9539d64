// out[token][row] = sum over columns of weight[row][column] * activation[token][column] (+ bias[row]).
//
// One algorithm for 1 token and for 512: a tile of up to 4 tokens keeps its sums in registers, and the codes of a group
// are unpacked once for all of them; of two panels at a time, where an instruction set has the registers.
//
// Included by isa/*.cpp after a vector_*.h; everything here has internal linkage.
#pragma once
#include "ops/kernels.h"
#include "ops/panel_products.h"

namespace octavo {
namespace {

// acc + the products of two columns, of bfloat16: first the odd one's, then the even one's, each rounded once.
#ifndef OCTAVO_BFLOAT_PRODUCTS
inline F add_pairs(F acc, const std::uint8_t* weights, const float* pair) {
  const I two = load_int((const std::int32_t*)weights), inputs = broadcast_int(*(const std::int32_t*)pair);
  const auto even = [](I a) { return as_float(shift_left<16>(a)); };
  const auto odd = [](I a) { return as_float(shift_left<16>(shift_right<16>(a))); };
  return multiply_add(even(two), even(inputs), multiply_add(odd(two), odd(inputs), acc));
}
#endif

template <Codes kind>
OCTAVO_LINE F load_floats(const std::uint8_t* at) {
  if constexpr (kind == Codes::F16) return load_half((const std::uint16_t*)at);
  if constexpr (kind == Codes::BF16) return load_bfloat((const std::uint16_t*)at);
  return load((const float*)at);
}

inline void store_rows(float* out, F values, int rows) {
  if (rows >= kPanelRows) return store(out, values);
  float padded[kPanelRows];  // the last panel of a matrix whose rows do not fill it
  store(padded, values);
  for (int r = 0; r < rows; ++r) out[r] = padded[r];
}

template <int tokens>
inline __attribute__((always_inline)) void store_tile(const MatmulTask& task, int index, int first, const F (&acc)[tokens]) {
  const int row = index * kPanelRows;
  const F bias = task.bias ? load(task.bias + row) : zero_lanes();
OCTAVO_UNROLL
  for (int n = 0; n < tokens; ++n)
    store_rows(task.out + task.out_stride * (first + n) + row, acc[n] + bias, task.matrix.rows - row);
}

inline const std::uint8_t* tile_of(const MatmulTask& task, int first) {
  return task.activations + task.tile_bytes * (first / task.width);
}

inline const QuantizedGroup* records_of(const MatmulTask& task, int first) {
  return (const QuantizedGroup*)tile_of(task, first) + first % task.width;
}

// One pass over some panels: that of the tile from token `first` on, of all that follow each other over the same panels.
struct Pass {
  int first, number, all;
};

// Panels from `index` on times `tokens` tokens of one tile.  While later tiles pass by, panels are near and memory would
// have nothing to do: each pass asks for its share of what comes next.
template <Codes kind, Scales scales, int zero, int tokens, int... p>
inline __attribute__((always_inline)) void multiply_tile(const MatmulTask& task, int index, Pass pass,
                                                         std::integer_sequence<int, p...>) {
  using ThisPanel = Panel<kind, scales>;
  const std::size_t bytes = task.matrix.panel_bytes();
  const std::uint8_t* data = task.matrix.data + bytes * index;
  const ThisPanel panel[] = {ThisPanel(task.matrix, data + bytes * p)...};
  constexpr bool alone = sizeof...(p) == 1;
  std::size_t distance = alone && pass.all == 1 ? 0 : bytes * sizeof...(p);
  if (distance < kLeastAhead) distance = kLeastAhead;
  const std::size_t share = ThisPanel::kGroupBytes * sizeof...(p) / pass.all;
  const Lookahead<alone && tokens == 1 ? ThisPanel::kGroupBytes : 0> ahead{
      data + distance + share * task.matrix.groups() * pass.number, share};
  F acc[sizeof...(p)][tokens];
OCTAVO_UNROLL
  for (auto& of_panel : acc) {
OCTAVO_UNROLL
    for (F& sum : of_panel) sum = zero_lanes();
  }
  quantized_tile<kind, scales, zero>(panel, task.matrix.groups(), records_of(task, pass.first), 2 * task.width, ahead, acc);
  (store_tile(task, index + p, pass.first, acc[p]), ...);
}

template <Codes kind, Scales scales, int zero, int panels, int tokens>
void multiply_panels(const MatmulTask& task, int index, Pass pass) {
  multiply_tile<kind, scales, zero, tokens>(task, index, pass, std::make_integer_sequence<int, panels>{});
}

// The same of float weights, whose activations are floats or pairs (kernels.h), 32 bits for each token and column or two;
// of several panels side by side, since the sums of one are too few to be begun in every cycle while others are not yet
// done.
template <Codes kind, int panels, int tokens>
void multiply_float_tile(const MatmulTask& task, int index, int first) {
  F acc[panels][tokens];
OCTAVO_UNROLL
  for (int p = 0; p < panels; ++p) {
OCTAVO_UNROLL
    for (int n = 0; n < tokens; ++n) acc[p][n] = zero_lanes();
  }
  constexpr int columns = kind == Codes::Pairs ? 2 : 1;  // at once
  constexpr std::size_t step = code_bytes(kind) / kGroup * columns;
  const std::size_t next = task.matrix.panel_bytes();
  const std::uint8_t* weights = task.matrix.data + next * index;
  const float* x = (const float*)tile_of(task, first);
  for (int column = 0; column < task.matrix.columns; column += columns, x += task.width, weights += step) {
OCTAVO_UNROLL
    for (int p = 0; p < panels; ++p) {
      const std::uint8_t* here = weights + next * p;
OCTAVO_UNROLL
      for (int n = 0; n < tokens; ++n) {
        if constexpr (kind == Codes::Pairs) acc[p][n] = add_pairs(acc[p][n], here, x + n);
        else acc[p][n] = multiply_add(load_floats<kind>(here), broadcast(x[n]), acc[p][n]);
      }
    }
  }
OCTAVO_UNROLL
  for (int p = 0; p < panels; ++p) store_tile(task, index + p, first, acc[p]);
}

template <Codes kind, int panels>
void multiply_floats(const MatmulTask& task, int index) {
  for (int first = 0; first < task.tokens; first += kTile) {
    switch (task.tokens - first) {
      case 1: multiply_float_tile<kind, panels, 1>(task, index, first); break;
      case 2: multiply_float_tile<kind, panels, 2>(task, index, first); break;
      case 3: multiply_float_tile<kind, panels, 3>(task, index, first); break;
      default: multiply_float_tile<kind, panels, kTile>(task, index, first);
    }
  }
}

template <Codes kind>
void float_sweep(const MatmulTask& task, int begin, int end) {
  int index = begin;
  for (; index + kFloatPanels <= end; index += kFloatPanels) multiply_floats<kind, kFloatPanels>(task, index);
  for (; index < end; ++index) multiply_floats<kind, 1>(task, index);
}

// Panels from `index` on times the tokens from `first` to `end`.
template <Codes kind, Scales scales, int zero, int panels>
void multiply_tokens(const MatmulTask& task, int index, int first, int end) {
  for (Pass pass{first, 0, (end - first + kTile - 1) / kTile}; pass.number < pass.all; ++pass.number, pass.first += kTile) {
    switch (end - pass.first) {
      case 1: multiply_panels<kind, scales, zero, panels, 1>(task, index, pass); break;
      case 2: multiply_panels<kind, scales, zero, panels, 2>(task, index, pass); break;
      case 3: multiply_panels<kind, scales, zero, panels, 3>(task, index, pass); break;
      default: multiply_panels<kind, scales, zero, panels, kTile>(task, index, pass);
    }
  }
}

// Panels from `begin` to `end` times the tokens from `first` to `last`.
template <Codes kind, Scales scales, int zero>
void multiply_range(const MatmulTask& task, int begin, int end, int first, int last) {
  if (last - first > 1)
    for (; begin + kCodePanels <= end; begin += kCodePanels)
      multiply_tokens<kind, scales, zero, kCodePanels>(task, begin, first, last);
  for (; begin < end; ++begin) multiply_tokens<kind, scales, zero, 1>(task, begin, first, last);
}

// Of a long prompt some tokens' activations at a time stay in the second-level cache while all panels pass by.
constexpr std::size_t kStretchBytes = 256 << 10;

inline int stretch_of(const MatmulTask& task) {
  const int tokens = int(kStretchBytes / (sizeof(QuantizedGroup) * task.matrix.groups())) / 16 * 16;
  return tokens < 16 ? 16 : tokens;
}

struct Sweep {
  template <Codes kind, Scales scales, int zero>
  static void run(const MatmulTask& task, int begin, int end) {
    const int stretch = stretch_of(task);
    for (int first = 0; first < task.tokens; first += stretch) {
      const int last = first + stretch < task.tokens ? first + stretch : task.tokens;
      multiply_range<kind, scales, zero>(task, begin, end, first, last);
    }
  }
};

// The sweep over a quantized matrix that its format asks for.
template <class AnySweep>
void quantized_matmul(const MatmulTask& task, int begin, int end) {
  const PanelFormat& f = task.matrix.format;
  switch (f.codes) {
    case Codes::U8: return AnySweep::template run<Codes::U8, Scales::D, 128>(task, begin, end);  // Q8_0
    case Codes::Upper: return AnySweep::template run<Codes::Upper, Scales::D, 8>(task, begin, end);
    case Codes::U6: return AnySweep::template run<Codes::U6, Scales::KD16, 32>(task, begin, end);  // Q6_K
    case Codes::U3: return AnySweep::template run<Codes::U3, Scales::KD16, 4>(task, begin, end);  // Q3_K
    case Codes::U2:
      if (f.scales == Scales::KD) return AnySweep::template run<Codes::U2, Scales::KD, 1>(task, begin, end);  // TQ1_0, TQ2_0
      return AnySweep::template run<Codes::U2, Scales::KDM16, 0>(task, begin, end);  // Q2_K
    case Codes::U4:
      if (f.scales == Scales::D) return AnySweep::template run<Codes::U4, Scales::D, 8>(task, begin, end);  // Q4_0
      if (f.scales == Scales::DM) return AnySweep::template run<Codes::U4, Scales::DM, 0>(task, begin, end);  // Q4_1
      return AnySweep::template run<Codes::U4, Scales::KDM, 0>(task, begin, end);  // Q4_K
    case Codes::U5:
      if (f.scales == Scales::D) return AnySweep::template run<Codes::U5, Scales::D, 16>(task, begin, end);  // Q5_0
      if (f.scales == Scales::DM) return AnySweep::template run<Codes::U5, Scales::DM, 0>(task, begin, end);  // Q5_1
      return AnySweep::template run<Codes::U5, Scales::KDM, 0>(task, begin, end);  // Q5_K
    case Codes::Table:
      if (f.scales == Scales::D) return AnySweep::template run<Codes::Table, Scales::D, 128>(task, begin, end);  // IQ4_NL
      if (f.scales == Scales::Bfloat) return AnySweep::template run<Codes::Table, Scales::Bfloat, 128>(task, begin, end);  // MXFP4
      return AnySweep::template run<Codes::Table, Scales::KD16, 128>(task, begin, end);  // IQ4_XS
    default: return;  // floats
  }
}

void matmul(const MatmulTask& task, int begin, int end) {
  switch (task.matrix.format.codes) {
    case Codes::F32: return float_sweep<Codes::F32>(task, begin, end);
    case Codes::F16: return float_sweep<Codes::F16>(task, begin, end);
    case Codes::BF16: return float_sweep<Codes::BF16>(task, begin, end);
    case Codes::Pairs: return float_sweep<Codes::Pairs>(task, begin, end);
    default: return quantized_matmul<Sweep>(task, begin, end);
  }
}

// Which tokens, of up to kTile from `first` on, have to know panel `index` with all its bits: bit n is token first + n.
inline unsigned asking(const Refinement& task, int index, int first) {
  unsigned which = 0;
  for (int n = 0; n < kTile && first + n < task.coarse.tokens; ++n) {
    const float* sums = task.coarse.out + task.coarse.out_stride * (first + n) + index * kPanelRows;
    which |= unsigned(reduce_max(load(sums)) >= task.floors[first + n]) << n;
  }
  return which;
}

inline JoinedPanel joined_panel(const Refinement& task, int index) {
  const PanelMatrix& matrix = task.coarse.matrix;
  const std::uint8_t* data = matrix.data + matrix.panel_bytes() * index;
  return {data, data + matrix.scale_bytes(), task.lower + code_bytes(Codes::Upper) * matrix.groups() * index};
}

// The panel's sums with all its bits for `tokens` tokens from `first` on; only those of `which` are kept, since what a token
// gets must not hang on who else asks.
template <int tokens>
void refine_panel(const Refinement& task, int index, const JoinedPanel& next, int first, unsigned which) {
  const MatmulTask& coarse = task.coarse;
  const JoinedPanel panel[] = {joined_panel(task, index)};
  F acc[1][tokens];
OCTAVO_UNROLL
  for (F& sum : acc[0]) sum = zero_lanes();
  quantized_tile<Codes::U8, Scales::D, 128>(panel, coarse.matrix.groups(), records_of(coarse, first), 2 * coarse.width,
                                            JoinedLookahead{next}, acc);
OCTAVO_UNROLL
  for (int n = 0; n < tokens; ++n)
    if (which >> n & 1) store(coarse.out + coarse.out_stride * (first + n) + index * kPanelRows, acc[0][n]);
}

// While a panel is summed, memory is asked for the next that is wanted: none could be foreseen.
void refine(const Refinement& task, int begin, int end) {
  const int tokens = task.coarse.tokens;
  const auto wanted_from = [&](int index) {
    for (; index < end; ++index)
      for (int first = 0; first < tokens; first += kTile)
        if (asking(task, index, first)) return index;
    return end;
  };
  for (int index = wanted_from(begin); index < end;) {
    const int next = wanted_from(index + 1);
    const JoinedPanel ahead = joined_panel(task, next < end ? next : index);
    for (int first = 0; first < tokens; first += kTile) {
      const unsigned which = asking(task, index, first);
      if (which == 0) continue;
      const bool is_alone = (which & (which - 1)) == 0;
      switch (is_alone ? 1 : tokens - first) {
        case 1: refine_panel<1>(task, index, ahead, first + __builtin_ctz(which), 1); break;
        case 2: refine_panel<2>(task, index, ahead, first, which); break;
        case 3: refine_panel<3>(task, index, ahead, first, which); break;
        default: refine_panel<kTile>(task, index, ahead, first, which);
      }
    }
    index = next;
  }
}

float largest(const float* values, int count) {
  F all = load(values);
  for (int i = kPanelRows; i < count; i += kPanelRows) all = maximum(all, load(values + i));
  return reduce_max(all);
}

}  // namespace
}  // namespace octavo
