// The kernels for avx2: the same algorithms over its vectors.
#include "isa/vector_avx2.h"

#include "ops/attention.h"
#include "ops/low_rank.h"
#include "ops/matmul.h"

namespace octavo {

const Kernels* avx2_kernels() {
  static const Kernels kernels{"avx2", matmul, refine, add_low_rank, largest, attend, merge, row, quantize, store_cache};
  return &kernels;
}

}  // namespace octavo
