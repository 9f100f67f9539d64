// Kernels of training: bfloat16 activations [rows, width], sums in float32.  For processors with bfloat16 products; others
// train by PyTorch's own functions, which are the slow twins (src/octavo/layers/native_training.py).
// Shapes: B sequences, T tokens, H query heads, G key-value heads, D head width, N = B * T rows, C width of a row.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace octavo {

using Bfloat = std::uint16_t;

// Rows lie `*_stride` elements apart; heads of a row are D apart.  A query sees the keys from first[b][t] to t.
struct TrainingAttention {
  const Bfloat *query, *key, *value;  // [B, T, H, D], [B, T, G, D]
  std::ptrdiff_t query_stride, key_stride, value_stride;
  Bfloat* out;                // [B, T, H, D], contiguous
  float* normalizers;         // [B, H, T]: logarithms of the sums of exponentials
  const std::int32_t* first;  // [B, T], rising along T
  int sequences, tokens, heads, key_heads, width;
  float scale;
  // Backward only.
  const Bfloat* out_gradient;  // [B, T, H, D], contiguous
  Bfloat *query_gradient, *key_gradient, *value_gradient;
  std::ptrdiff_t query_gradient_stride, key_gradient_stride, value_gradient_stride;
};

enum class TrainingActivation : int { Silu, Gelu, GeluTanh };

// out = activation(gate) * up, or activation(gate) where gated is false; rows of in are [gate | up].
struct TrainingActivationTask {
  TrainingActivation kind;
  bool gated;
  const Bfloat *in, *out_gradient;  // [N, C or 2C], [N, C]
  Bfloat *out, *in_gradient;
  int rows, width;
};

// out = (x - mean) / deviation * weight + bias; without `centered` the mean counts as 0 (RMSNorm), bias may be null.
struct TrainingNorm {
  const Bfloat* in;  // [N, C]
  const float *weight, *bias;
  float epsilon;
  bool centered;
  int rows, width;
  Bfloat* out;
  // Backward only.
  const Bfloat* out_gradient;
  Bfloat* in_gradient;
  float *weight_gradient, *bias_gradient;  // [kNormPieces, C]: partial sums, added up by the caller
  const Bfloat* around;  // [N, C], added to the gradient of in: that of what goes around the norm; or null
};
constexpr int kNormPieces = 16;

// Each head of D values normed by weight [D] (or not, if null) and turned by the angles (or not, if null).
struct TrainingHeads {
  const Bfloat* in;  // [N, H, D], rows in_stride apart
  std::ptrdiff_t in_stride;
  const float* weight;
  float epsilon;
  const float *cosine, *sine;  // [T, D/2], or [N, D/2]: row % angle_rows
  int angle_rows;
  int rows, heads, width;
  Bfloat* out;  // [N, H, D], rows out_stride apart
  std::ptrdiff_t out_stride;
  // Backward only: gradients of out -> gradients of in.
  const Bfloat* out_gradient;
  std::ptrdiff_t out_gradient_stride;
  Bfloat* in_gradient;
  std::ptrdiff_t in_gradient_stride;
  float* weight_gradient;  // [kNormPieces, D]
};

// Of each row of logits [N, V]: the loss of its target, and in the row's place scale * (softmax - target), where the
// target gives `smoothing` of its probability to all V alike.
struct TrainingCrossEntropy {
  Bfloat* logits;
  const std::int64_t* targets;
  float* losses;  // [N], without scale
  float scale, smoothing;
  bool slopes;  // false: the logits stay
  int rows, vocabulary;
};

// weight_gradient [O, I] (+)= out_gradient^T in: [N, O] and [N, I], rows out_stride and in_stride apart.
// O and I are multiples of 16.
struct TrainingWeightGradient {
  const Bfloat *out_gradient, *in;
  std::ptrdiff_t out_stride, in_stride;
  float* weight_gradient;
  int rows, outputs, inputs;
  bool add;
  int piece_outputs, piece_inputs;
  float* bias_gradient;  // [O]: sums of out_gradient over its rows; or null
};

// Float32 to bfloat16.
struct TrainingLowering {
  const float* in;
  Bfloat* out;
  std::size_t count;
};

// NF4 (Dettmers et al. 2023, appendix E): quantiles of the normal distribution with an exact zero.
inline constexpr float kNf4Levels[16] = {
    -1.0f,                -0.6961928009986877f, -0.5250730514526367f,  -0.39491748809814453f, -0.28444138169288635f, -0.18477343022823334f,
    -0.09105003625154495f, 0.0f,                0.07958029955625534f,  0.16093020141124725f,  0.24611230194568634f,  0.33791524171829224f,
    0.44070982933044434f, 0.5626170039176941f,  0.7229568362236023f,   1.0f};

// Rows [begin, end) of a weight in NF4 (src/octavo/adapters/nf4.py), blocks of 64 of a row.
struct TrainingNf4 {
  const std::uint8_t* codes;
  const float* absmax;         // a scale for each block; or null, and then of double quantization:
  const std::uint8_t* scales;  // codes of scales
  const float *levels, *outer;  // [256], and one for each 256 blocks
  float offset;
  int begin, end;

  float scale(std::size_t block) const { return absmax ? absmax[block] : levels[scales[block]] * outer[block / 256] + offset; }
};

// [O, columns], in bfloat16 (rows `stride` apart), or if `values` is null, in NF4 parts that lie below one another.
struct TrainingWeight {
  const Bfloat* values;
  std::ptrdiff_t stride;
  const TrainingNf4* nf4;
  int columns;
};

// The left side of a product in bytes (ops/training_bytes.h): K is a multiple of kByteGroup, numbers that a scale is for.
constexpr int kByteGroup = 64, kMostKept = 256;
struct TrainingBytes {
  const Bfloat* in;  // [N, K]
  std::ptrdiff_t stride;
  int rows, width;
  std::uint8_t* codes;  // [N, K], 128 too large
  float* scales;        // [N, K / kByteGroup]
  // Columns that stay in bfloat16, rising; an even number, of kMostKept at most.
  int kept;
  const std::int32_t* columns;
  const Bfloat* rest;  // [K]: all bits set but in these columns
  Bfloat* beside;      // [N, kept]: their values
  float* energies;     // [kNormPieces, K]: partial sums of squares
};

// out [N, C] = left [N, K] W^T + low_left [N, R] low_right^T if transposed: W is [C, K], low_right [C, R];
// else left W + low_left low_right: [K, C], [R, C].  C is a multiple of 16, K and R are even; of NF4 columns of W are
// multiples of 64.
struct TrainingProduct {
  const Bfloat* left;
  std::ptrdiff_t left_stride;
  TrainingWeight weight;
  bool transposed;
  const Bfloat *low_left, *low_right;
  std::ptrdiff_t low_left_stride, low_right_stride;
  Bfloat* out;
  std::ptrdiff_t out_stride;
  int rows, inner, columns, rank, piece_rows, piece_columns;
  const float* bias;  // [C], added to each row of out; or null
  const TrainingBytes* bytes;  // the left side for products in bytes; or null
};
// Of a piece at most: rows, columns, and rows where sums wait in memory for the rest of their terms, as they do if
// there are more than `terms`.  Columns are taken `panel` at a time, or `nf4_panel` where they are those of blocks.
struct ProductSizes {
  int rows, columns, waiting_rows, terms, panel, nf4_panel;
};

// Low-rank pairs of one input as one pair in bfloat16: down [rank, inputs] has each scale * A below one another, up
// [outputs, rank] each B in its block of rows [begin, end) and zero elsewhere.  What fills `rank` up is zero.
struct TrainingPair {
  const float *down, *up;  // A [rank, inputs], B [end - begin, rank]
  int rank, begin, end;
  float scale;
};
struct TrainingPairs {
  const TrainingPair* pairs;
  int count, inputs, outputs, rank;
  Bfloat *down, *up;
};

// Of a piece of a gradient at most: outputs, inputs, and both multiplied.  Both sides are put into pairs for each piece, the
// left side at a higher price: so a piece has all inputs if it can.
struct GradientSizes {
  int outputs, inputs, sums, step;
};

// Each function does piece `piece` of `pieces(task)`; pieces may be done in any order by any thread.
struct TrainingKernels {
  void (*attention)(const TrainingAttention&, int piece);
  void (*attention_backward)(const TrainingAttention&, int piece);
  void (*activation)(const TrainingActivationTask&, int piece);
  void (*activation_backward)(const TrainingActivationTask&, int piece);
  void (*norm)(const TrainingNorm&, int piece);
  void (*norm_backward)(const TrainingNorm&, int piece);
  void (*heads)(const TrainingHeads&, int piece);
  void (*heads_backward)(const TrainingHeads&, int piece);
  void (*cross_entropy)(const TrainingCrossEntropy&, int piece);
  void (*weight_gradient)(const TrainingWeightGradient&, int piece);
  void (*product)(const TrainingProduct&, int piece);
  // In bytes; null where tiles multiply, whose sums take longer to be scaled than to be made.
  void (*byte_product)(const TrainingProduct&, int piece);
  void (*quantize)(const TrainingBytes&, int piece);         // of kNormPieces
  void (*column_energies)(const TrainingBytes&, int piece);  // of kNormPieces
  void (*join_pairs)(const TrainingPairs&);
  void (*lower)(const TrainingLowering&, int piece);  // of kNormPieces
  // Sizes of pieces that suit the kernels' caches.
  GradientSizes gradient_sizes;
  ProductSizes product_sizes;
  const char* name;
};

// How many parts of a size hold so many.
inline int parts(int count, int size) { return (count + size - 1) / size; }

inline int attention_pieces(const TrainingAttention& task) { return task.sequences * task.heads; }
inline int attention_backward_pieces(const TrainingAttention& task) { return task.sequences * task.key_heads; }
inline int weight_gradient_pieces(const TrainingWeightGradient& task) {
  return parts(task.outputs, task.piece_outputs) * parts(task.inputs, task.piece_inputs);
}
inline int product_pieces(const TrainingProduct& task) {
  return parts(task.columns, task.piece_columns) * parts(task.rows, task.piece_rows);
}
// Pieces as even as they can be made, as many as threads or a multiple of it: by columns, and by rows where these are few.
inline void choose_pieces(TrainingProduct& task, const ProductSizes& most, int threads) {
  constexpr int kRows = 64;
  const auto size = [](int count, int pieces, int step) { return parts(parts(count, pieces), step) * step; };
  task.piece_rows = task.inner <= most.terms ? most.rows : most.waiting_rows;
  task.piece_columns = most.columns;
  const auto share_rows = [&] { task.piece_rows = std::min(task.piece_rows, size(task.rows, threads, kRows)); };
  const int step = task.weight.values || task.transposed ? most.panel : most.nf4_panel;
  if (task.columns < step * threads) return share_rows();
  const int least = parts(parts(task.columns, most.columns), threads) * threads;
  int lost = task.columns;  // columns that the busiest thread has more than its share
  for (int pieces = least; pieces <= 4 * least; pieces += threads) {
    const int columns = size(task.columns, pieces, step);
    const int more = parts(parts(task.columns, columns), threads) * columns - task.columns / threads;
    if (more < lost) lost = more, task.piece_columns = columns;
  }
  if (32 * lost > task.columns) share_rows();
}
// The same for gradients, by outputs, or by inputs where there are too few of these.
inline void choose_pieces(TrainingWeightGradient& task, const GradientSizes& most, int threads) {
  const auto even = [&](int count, int pieces) { return parts(parts(count, pieces), most.step) * most.step; };
  int across = parts(task.inputs, most.inputs);
  task.piece_inputs = even(task.inputs, across);
  int along = parts(task.outputs, std::clamp(most.sums / task.piece_inputs / most.step * most.step, most.step, most.outputs));
  while (along * across % threads && along * most.step < task.outputs) ++along;
  task.piece_outputs = even(task.outputs, along);
  while (along * across % threads && across * most.step < task.inputs) ++across;
  task.piece_inputs = even(task.inputs, across);
}

// Rows are shared out in kNormPieces stretches, so that sums over rows do not depend on the number of threads.
inline int first_row(int rows, int piece) { return int(std::int64_t(rows) * piece / kNormPieces); }

const TrainingKernels* avx512_bfloat16_training_kernels();
const TrainingKernels* amx_training_kernels();
// The best that this processor has, or those of the set that OCTAVO_ISA names; null if that has no bfloat16 products.
const TrainingKernels* training_kernels();

}  // namespace octavo
