// Training's kernels on processors with tiles for bfloat16 products (AMX): products by tiles, the rest by AVX-512.
#include "isa/vector_avx512.h"

#include <algorithm>

#include "ops/rows.h"
#include "isa/products_tiles.h"
#include "ops/training_attention.h"
#include "ops/training_rows.h"
#include "ops/training_weights.h"
#include "ops/training_product.h"

namespace octavo {

const TrainingKernels* amx_training_kernels() {
  static const TrainingKernels kernels{training_attention,         training_attention_backward, training_activation<false>,
                                       training_activation<true>,  training_norm,               training_norm_backward,
                                       training_heads,             training_heads_backward,     training_cross_entropy,
                                       training_weight_gradient,   training_product,
                                       join_training_pairs,        training_lowering,
                                       192, 768, 512, 384, "amx-bf16"};
  return &kernels;
}

}  // namespace octavo
