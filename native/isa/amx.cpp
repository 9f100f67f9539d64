// AVX-512 beside the matrix unit of Intel's server processors (AMX): matmuls of many tokens, and of encoders.
#include "isa/vector_avx512.h"

#include <algorithm>

#include "ops/tiled_matmul.h"

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

}  // namespace octavo
