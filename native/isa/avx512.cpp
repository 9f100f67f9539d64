// The kernels for avx512: the same algorithms over its vectors.
#include "isa/vector_avx512.h"

#include "ops/attention.h"
#include "ops/low_rank.h"
#include "ops/matmul.h"

namespace octavo {

const Kernels* avx512_kernels() {
  static const Kernels kernels{"avx512", matmul, refine, add_low_rank, largest, attend, merge, row, quantize, store_cache};
  return &kernels;
}

}  // namespace octavo
