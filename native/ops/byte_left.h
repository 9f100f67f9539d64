// The left side of a product in bytes: its memory, which is kept for the next one, and which columns stay in bfloat16.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

#include "ops/training.h"

namespace octavo {

class ByteLeft {
 public:
  // The left side of a product, rounded; `kept` of its columns are not: those with the most energy.  run(kernel, task) does
  // all pieces of a kernel.
  template <class Run>
  const TrainingBytes* fill(const TrainingProduct& product, int kept, const TrainingKernels& kernels, Run&& run) {
    const std::size_t rows = product.rows, width = product.inner;
    task_ = {product.left,
             product.left_stride,
             product.rows,
             product.inner,
             room(codes_, rows * width),
             room(scales_, rows * width / kByteGroup),
             kept,
             room(columns_, width),
             room(rest_, width),
             room(beside_, rows * kept),
             room(energies_, kNormPieces * width)};
    if (kept) {
      run(kernels.column_energies, task_);
      choose_columns();
    }
    run(kernels.quantize, task_);
    return &task_;
  }

 private:
  template <class T>
  static T* room(std::vector<T>& memory, std::size_t count) {
    if (memory.size() < count) memory.resize(count);
    return memory.data();
  }

  void choose_columns() {
    const int width = task_.width, kept = task_.kept;
    for (int piece = 1; piece < kNormPieces; ++piece)
      for (int k = 0; k < width; ++k) energies_[k] += energies_[std::size_t(piece) * width + k];
    const auto begin = columns_.begin();
    std::iota(begin, begin + width, 0);
    // Equal energies go by place; what is no number counts as none, so that there is an order.
    const auto energy = [&](int k) { return std::isnan(energies_[k]) ? 0.0f : energies_[k]; };
    std::nth_element(begin, begin + kept, begin + width,
                     [&](int a, int b) { return energy(a) != energy(b) ? energy(a) > energy(b) : a < b; });
    std::sort(begin, begin + kept);
    std::fill(rest_.begin(), rest_.begin() + width, Bfloat(0xffff));
    for (int j = 0; j < kept; ++j) rest_[columns_[j]] = 0;
  }

  TrainingBytes task_{};
  std::vector<std::uint8_t> codes_;
  std::vector<float> scales_, energies_;
  std::vector<std::int32_t> columns_;
  std::vector<Bfloat> rest_, beside_;
};

}  // namespace octavo
