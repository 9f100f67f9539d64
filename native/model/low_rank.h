// Low-rank additions to matrices, of each sequence its own: what adapters (Hu et al. 2021) are to a step.
//
// Kept in 8 bits, in the order in which a step reads them, in one stretch of memory: an adapter that only one sequence
// of a batch uses costs what reading it costs.
#pragma once
#include <cstdint>
#include <vector>

#include "ops/kernels.h"
#include "support/aligned.h"

namespace octavo {

// Rows first_row.. of a matrix get up (down x).
struct LowRankPair {
  int matrix, first_row, rank, columns, rows;
  const float* down;  // [rank][columns]
  const float* up;    // [rows][rank], the scale in it
};

// A pair's second half: what it adds to the panels first_panel.. of a matrix.
struct LowRankUp {
  int matrix, first_panel, panels;
  int inner_row, inner_group;  // where a token's product with this pair's down begins, as floats and quantized
  UpPanels up;
};

// All pairs of a stage: their downs are one matrix, each from a panel of its own on.
struct LowRankStage {
  PanelMatrix down;
  int inner_groups = 0;
  std::vector<LowRankUp> ups;
};

struct Adapter {
  std::vector<LowRankStage> stages;  // by the number of the stage; without ups where nothing is added
  AlignedBuffer<std::uint8_t> bytes;
};

// Packs the pairs of each stage.  Throws std::invalid_argument for numbers that are not finite.
Adapter pack_adapter(const std::vector<std::vector<LowRankPair>>& of_stage);

}  // namespace octavo
