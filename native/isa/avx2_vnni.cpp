// The kernels for avx2 with the dot products of AVX-VNNI: the same algorithms over its vectors.
#include "isa/vector_avx2.h"

#include "ops/attention.h"
#include "ops/low_rank.h"
#include "ops/matmul.h"

namespace octavo {

const Kernels* avx2_vnni_kernels() {
  static const Kernels kernels{"avx2-vnni", matmul, refine, add_low_rank, largest, attend, merge, row, quantize, store_cache};
  return &kernels;
}

}  // namespace octavo
