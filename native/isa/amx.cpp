// AVX-512 beside the matrix unit of Intel's server processors (AMX): matmuls of many tokens and of encoders, and
// training's products.
#include "isa/vector_avx512.h"

#include <algorithm>

#include "ops/rows.h"
#include "ops/tiled_matmul.h"
#include "isa/products_tiles.h"
#include "ops/training_attention.h"
#include "ops/training_rows.h"
#include "ops/training_weights.h"
#include "ops/training_product.h"

namespace octavo {
namespace {

void tiled_matmul(const MatmulTask& task, int begin, int end) {
  if (task.matrix.format.codes == Codes::Pairs) return pair_sweep(task, begin, end);
  if (task.matrix.format.is_float()) return matmul(task, begin, end);
  quantized_matmul<TiledSweep>(task, begin, end);
}

}  // namespace

const Kernels* amx_kernels() {
  static const Kernels kernels = [] {
    Kernels all = *avx512_kernels();
    all.name = "amx";
    all.matmul = tiled_matmul;
    all.bfloat_products = true;
    all.tile = kUnitTokens;
    all.pair_tile = 1;
    return all;
  }();
  return &kernels;
}

const TrainingKernels* amx_training_kernels() {
  static const TrainingKernels kernels{training_attention,         training_attention_backward, training_activation<false>,
                                       training_activation<true>,  training_norm,               training_norm_backward,
                                       training_heads,             training_heads_backward,     training_cross_entropy,
                                       training_weight_gradient,   training_product<PairSides>,
                                       nullptr,                    nullptr,                     nullptr,
                                       join_training_pairs,        training_lowering,
                                       {576, 768, 225000, 32}, {1024, 384, 512, kProductInner, kProductPanel, 64}, "amx"};
  return &kernels;
}

}  // namespace octavo
