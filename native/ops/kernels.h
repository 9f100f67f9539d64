// What an instruction set offers: one table of functions, and the plain structures that they take.
// Shapes: T tokens of a step, S sequences, H query heads, G query heads for each key-value head, D head width.
#pragma once
#include <cstddef>
#include <cstdint>

#include "ops/panel.h"

namespace octavo {

// --- matmul -----------------------------------------------------------------------------------------------------
struct MatmulTask {
  PanelMatrix matrix;
  const float* bias;                // [rows up to a whole panel], or null
  const std::uint8_t* activations;  // tiles of `width` tokens: records (panel.h), floats [column][width], or
                                    // for weights in pairs bfloat16 [column / 2][width][2]
  std::size_t tile_bytes;
  int width;
  int tokens;
  float* out;  // [tokens][out_stride]
  std::size_t out_stride;
};

// The logits' matrix in two passes.  Most tokens of a vocabulary are out of the question at any position, and the upper
// nibbles of their codes suffice to see it: a sweep over Codes::Upper takes every lower nibble for 7.5, their mean, and
// then only panels that hold a likely token are summed again with all their bits, exactly as a U8 matrix would be.
struct Refinement {
  MatmulTask coarse;          // done: its sums are in coarse.out
  const std::uint8_t* lower;  // the lower nibbles, panel after panel, in the lines of U4
  const float* floors;        // [tokens]: a panel with no sum from here on stays as it is
};

// --- low-rank additions ------------------------------------------------------------------------------------------
constexpr int kGroupLines = kGroup / 4;  // lines of codes in a group

// A matrix `up` of few columns, its rank, in panels of 16 rows: of each row a bfloat16 scale, then in other memory lines
// of codes as in U8, four columns each, but no more lines than the rank fills.
struct UpPanels {
  int rank;
  const std::uint16_t* scales;  // [panels][16]
  const std::uint8_t* codes;    // [panels][lines][64]

  OCTAVO_INLINE int lines() const { return (rank + 3) / 4; }
  OCTAVO_INLINE std::size_t panel_bytes() const { return std::size_t(kLine) * lines(); }
};

struct LowRankTask {
  UpPanels up;
  const QuantizedGroup* inner;  // [groups of the rank][2]: a tile of one token
  float* out;                   // of the first panel's first row
  int rows;                     // that exist in `out`
};

// --- attention --------------------------------------------------------------------------------------------------
constexpr int kBlockTokens = 32;   // tokens in a block of the cache
constexpr int kSplitTokens = 256;  // attention sums restart here and are merged in order, wherever a step begins
constexpr int kChunkBlocks = kSplitTokens / kBlockTokens;  // blocks of the cache that lie together
constexpr int kRowTile = 8;        // query rows that share a pass over the keys

constexpr int kMaxHeadWidth = 1024;

enum class CacheType : std::uint8_t { F16, I8 };

// Where a layer keeps keys and values.  A tile holds the keys, or the values, of one block for one head:
//   F16: keys half[D][32], values half[32][D];
//   I8: float scales of the 32, then keys [2][D/4][16 keys][4] or values [D/16][8][16 columns][4 keys].
// Keys lie across: 16 neighbouring tokens are one vector, so scores need no sum across lanes.  The cache is
// [chunks][layers][heads][keys, values][8 blocks]: a split of neighbouring blocks is read in two streams, and a sequence
// touches memory, which the system gives when it is touched, only as far as it goes.
struct CacheLayer {
  std::uint8_t* data;  // of this layer in the first chunk
  CacheType type;
  int head_width;
  std::size_t chunk_stride;  // bytes from chunk to chunk

  OCTAVO_INLINE std::size_t tile_bytes() const {
    const std::size_t elements = std::size_t(head_width) * kBlockTokens;
    return type == CacheType::F16 ? 2 * elements : elements + kBlockTokens * sizeof(float);
  }
  // Bytes of one layer in a chunk.
  OCTAVO_INLINE std::size_t bytes(int heads) const { return tile_bytes() * 2 * std::size_t(heads) * kChunkBlocks; }
  OCTAVO_INLINE std::uint8_t* keys(std::int32_t block, int head) const { return tile(block, 2 * head); }
  OCTAVO_INLINE std::uint8_t* values(std::int32_t block, int head) const { return tile(block, 2 * head + 1); }
  OCTAVO_INLINE std::uint8_t* tile(std::int32_t block, int column) const {
    const std::size_t within = std::size_t(column) * kChunkBlocks + block % kChunkBlocks;
    return data + chunk_stride * (block / kChunkBlocks) + tile_bytes() * within;
  }
};

struct AttentionTask {
  CacheLayer cache;
  const std::int32_t* blocks;     // the block table of the sequence
  const std::int32_t* positions;  // of the sequence's new tokens
  const float* queries;           // of the sequence's first new token; [T][query_stride]
  std::size_t query_stride;
  float* out;  // [T][out_stride]
  std::size_t out_stride;
  int key_value_head;
  int group;      // G
  int first_row;  // row = token * G + head within the group
  int rows;       // up to kRowTile
  int keys;       // tokens of the sequence in the cache, this step's included
  int window;     // 0 for none
  bool causal;
  float scale;
  float softcap;       // 0 for none
  int split_begin;     // which splits of kSplitTokens this task sums
  int split_end;
  float* partials;         // null: finish the rows; else [token][head][split][D + 16] takes (max, sum) and values
  std::size_t row_stride;  // of partials, from head to head
  int heads;               // rows of partials from token to token
};

// --- operations on one token's row ----------------------------------------------------------------------------------
enum class RowKind : std::uint8_t {
  Add,             // out += in
  Scale,           // out *= number
  RmsNorm,         // out = in / rms(in) * weight
  LayerNorm,       // out = (in - mean) / deviation * weight + bias
  HeadNorm,        // RmsNorm of each head of `width`, in place
  RopeHalf,        // rotary embedding in place, pairs (i, i + width/2)
  RopeInterleaved, // pairs (2i, 2i + 1)
  Silu, Gelu, GeluTanh,            // out = f(in)
  GatedSilu, GatedGelu, GatedGeluTanh,  // out = f(in) * in2
  SoftCap,         // out = number * tanh(out / number)
};

struct RowTask {
  RowKind kind;
  float* out;
  const float* in;
  const float* in2;
  const float* weight;
  const float* bias;
  int count;   // elements of the row
  int width;   // of a head, or how many elements of it are rotated
  int stride;  // from head to head
  float number;  // epsilon, factor or cap
};

// Groups whose square is above so many times their row's mean have their rests multiplied too (rows.h): a few per cent of a
// step, for most of what rounding does to logits.  A sequence with an adapter is held to the model that the adapter is
// merged into, whose weights are floats and multiplied with floats, so it has more of them.
constexpr float kOutlier = 2.0f, kAdaptedOutlier = 0.9f;

struct Kernels {
  const char* name;
  void (*matmul)(const MatmulTask& task, int panel_begin, int panel_end);
  void (*refine)(const Refinement& task, int panel_begin, int panel_end);
  void (*add_low_rank)(const LowRankTask& task, int panel_begin, int panel_end);
  float (*largest)(const float* values, int count);  // count: a multiple of 16
  void (*attend)(const AttentionTask& task, float* scratch);  // scratch: attention_scratch floats
  void (*merge)(CacheType type, const float* partials, int splits, int head_width, float* out);
  void (*row)(const RowTask& task);
  void (*quantize)(const float* in, int count, int width, int slot, float outlier, std::uint8_t* tile);
  void (*store_cache)(const CacheLayer& layer, std::int32_t block, int slot, int head, const float* key,
                      const float* value);
  bool bfloat_products = false;  // matmuls of Codes::Pairs are faster than those of floats
  // Tokens in a tile's memory, where they are many: quantized ones, and those of weights in pairs.
  int tile = kTile, pair_tile = kTile;

  OCTAVO_INLINE int width(const PanelFormat& format, int tokens) const {
    return tile_width(tokens, format.codes == Codes::Pairs ? pair_tile : format.is_float() ? kTile : tile);
  }
};

OCTAVO_INLINE constexpr std::size_t attention_scratch(int head_width) {
  // Scores, a split's sums, a row's sums; then one rotated row and the queries in two limbs.
  return std::size_t(kRowTile) * (kSplitTokens + 2 * head_width + head_width / 2) + head_width + 32;
}

// One for each file in isa/; null where the machine or the build does not have it.
const Kernels* scalar_kernels();
const Kernels* avx2_kernels();
const Kernels* avx2_vnni_kernels();
const Kernels* avx512_kernels();
const Kernels* avx512_bfloat16_kernels();
const Kernels* amx_kernels();
const Kernels* neon_kernels();

}  // namespace octavo
