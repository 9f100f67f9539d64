// AVX-512 with bfloat16 products: matmuls of pairs, and training's kernels.
#include "isa/vector_avx512.h"

#include <algorithm>

#include "ops/matmul.h"
#include "ops/rows.h"
#include "isa/products_vector.h"
#include "ops/training_attention.h"
#include "ops/training_rows.h"
#include "ops/training_weights.h"
#include "ops/training_product.h"
#include "ops/training_bytes.h"

namespace octavo {
namespace {

void matmul_or_pairs(const MatmulTask& task, int begin, int end) {
  if (task.matrix.format.codes == Codes::Pairs) return float_sweep<Codes::Pairs>(task, begin, end);
  avx512_kernels()->matmul(task, begin, end);
}

}  // namespace

const Kernels* avx512_bfloat16_kernels() {
  static const Kernels kernels = [] {
    Kernels all = *avx512_kernels();
    all.name = "avx512-bf16";
    all.matmul = matmul_or_pairs;
    all.bfloat_products = true;
    return all;
  }();
  return &kernels;
}

const TrainingKernels* avx512_bfloat16_training_kernels() {
  static const TrainingKernels kernels{training_attention,         training_attention_backward, training_activation<false>,
                                       training_activation<true>,  training_norm,               training_norm_backward,
                                       training_heads,             training_heads_backward,     training_cross_entropy,
                                       training_weight_gradient,   training_product<PairSides>,
                                       training_product<ByteSides>, training_quantize,          training_column_energies,
                                       join_training_pairs,        training_lowering,
                                       {192, 384, 192 * 384, 192}, {512, 192, 512, kProductInner, kProductPanel, 192}, "avx512-bf16"};
  return &kernels;
}

}  // namespace octavo
