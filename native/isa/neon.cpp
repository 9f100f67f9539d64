// The kernels for NEON: the same algorithms over its vectors.
#include "isa/vector_neon.h"

#include "ops/attention.h"
#include "ops/low_rank.h"
#include "ops/matmul.h"

namespace octavo {

const Kernels* neon_kernels() {
  static const Kernels kernels{"neon", matmul, refine, add_low_rank, largest, attend, merge, row, quantize, store_cache};
  return &kernels;
}

}  // namespace octavo
