// The kernels for scalar: the same algorithms over its vectors.
#include "isa/vector_scalar.h"

#include "ops/attention.h"
#include "ops/low_rank.h"
#include "ops/matmul.h"

namespace octavo {

const Kernels* scalar_kernels() {
  static const Kernels kernels{"scalar", matmul, refine, add_low_rank, largest, attend, merge, row, quantize, store_cache};
  return &kernels;
}

}  // namespace octavo
