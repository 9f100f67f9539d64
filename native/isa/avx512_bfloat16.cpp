// Training's kernels on AVX-512 with bfloat16 products.
#include "isa/vector_avx512.h"

#include <algorithm>

#include "ops/rows.h"
#include "ops/training_attention.h"
#include "ops/training_rows.h"
#include "ops/training_weights.h"

namespace octavo {

const TrainingKernels* avx512_bfloat16_training_kernels() {
  static const TrainingKernels kernels{training_attention,         training_attention_backward, training_activation<false>,
                                       training_activation<true>,  training_norm,               training_norm_backward,
                                       training_heads,             training_heads_backward,     training_cross_entropy,
                                       training_weight_gradient};
  return &kernels;
}

}  // namespace octavo
