// Training's kernels over tensors of PyTorch, which come as addresses: shapes, types and strides were checked by
// src/octavo/layers/native_training.py, the only caller.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <cstdint>
#include <string>
#include <vector>

#include "model/unpack.h"
#include "ops/byte_left.h"
#include "ops/training.h"
#include "support/team.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using Address = std::uintptr_t;

template <class T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

// The threads that pieces run on: GOMP_parallel's address (0: this thread alone) and how many.
struct Team {
  octavo::OpenMpParallel parallel;
  int threads;

  Team(Address address, int count) : parallel(at<void(void (*)(void*), void*, unsigned, unsigned)>(address)), threads(count) {}

  template <class Task>
  void run(void (*kernel)(const Task&, int), const Task& task, int pieces) const {
    nb::gil_scoped_release unlocked;
    octavo::run_pieces(parallel, threads, pieces, [&](int piece) { kernel(task, piece); });
  }
};

const octavo::TrainingKernels& kernels() {
  const octavo::TrainingKernels* found = octavo::training_kernels();
  if (!found) throw nb::value_error("this processor has no bfloat16 products: train by PyTorch's functions");
  return *found;
}

// The fields of a task come as one tuple in the order of the structure.
octavo::TrainingAttention attention_task(const nb::tuple& fields) {
  const auto address = [&](int i) { return nb::cast<Address>(fields[i]); };
  const auto number = [&](int i) { return nb::cast<std::ptrdiff_t>(fields[i]); };
  return {at<octavo::Bfloat>(address(0)), at<octavo::Bfloat>(address(1)), at<octavo::Bfloat>(address(2)),
          number(3), number(4), number(5),
          at<octavo::Bfloat>(address(6)), at<float>(address(7)), at<std::int32_t>(address(8)),
          int(number(9)), int(number(10)), int(number(11)), int(number(12)), int(number(13)), nb::cast<float>(fields[14]),
          at<octavo::Bfloat>(address(15)), at<octavo::Bfloat>(address(16)), at<octavo::Bfloat>(address(17)),
          at<octavo::Bfloat>(address(18)), number(19), number(20), number(21)};
}

void attention(Address parallel, int threads, const nb::tuple& fields) {
  const auto task = attention_task(fields);
  Team(parallel, threads).run(kernels().attention, task, octavo::attention_pieces(task));
}

void attention_backward(Address parallel, int threads, const nb::tuple& fields) {
  const auto task = attention_task(fields);
  Team(parallel, threads).run(kernels().attention_backward, task, octavo::attention_backward_pieces(task));
}

// out_gradient is 0 for the forward pass.
void activation(Address parallel, int threads, int kind, bool gated, Address in, Address out_gradient, Address out, int rows,
                int width) {
  const octavo::TrainingActivationTask task{octavo::TrainingActivation(kind), gated, at<octavo::Bfloat>(in),
                                            at<octavo::Bfloat>(out_gradient), at<octavo::Bfloat>(out),
                                            at<octavo::Bfloat>(out), rows, width};
  Team(parallel, threads)
      .run(out_gradient ? kernels().activation_backward : kernels().activation, task, octavo::kNormPieces);
}

void norm(Address parallel, int threads, Address in, Address weight, Address bias, float epsilon, bool centered, int rows,
          int width, Address out, Address out_gradient, Address weight_gradient, Address bias_gradient, Address around) {
  const octavo::TrainingNorm task{at<octavo::Bfloat>(in), at<float>(weight), at<float>(bias), epsilon, centered, rows, width,
                                  at<octavo::Bfloat>(out), at<octavo::Bfloat>(out_gradient), at<octavo::Bfloat>(out),
                                  at<float>(weight_gradient), at<float>(bias_gradient), at<octavo::Bfloat>(around)};
  Team(parallel, threads).run(out_gradient ? kernels().norm_backward : kernels().norm, task, octavo::kNormPieces);
}

void heads(Address parallel, int threads, Address in, std::ptrdiff_t in_stride, Address weight, float epsilon, Address cosine,
           Address sine, int angle_rows, int rows, int heads, int width, Address out, std::ptrdiff_t out_stride,
           Address out_gradient, std::ptrdiff_t out_gradient_stride, Address weight_gradient) {
  const octavo::TrainingHeads task{at<octavo::Bfloat>(in), in_stride, at<float>(weight), epsilon, at<float>(cosine),
                                   at<float>(sine), angle_rows, rows, heads, width, at<octavo::Bfloat>(out), out_stride,
                                   at<octavo::Bfloat>(out_gradient), out_gradient_stride, at<octavo::Bfloat>(out), out_stride,
                                   at<float>(weight_gradient)};
  Team(parallel, threads).run(out_gradient ? kernels().heads_backward : kernels().heads, task, octavo::kNormPieces);
}

// Returns false for a target outside the vocabulary, and then does nothing.
bool cross_entropy(Address parallel, int threads, Address logits, Address targets, Address losses, float scale,
                   float smoothing, bool slopes, int rows, int vocabulary) {
  const octavo::TrainingCrossEntropy task{at<octavo::Bfloat>(logits), at<std::int64_t>(targets), at<float>(losses), scale,
                                          smoothing, slopes, rows, vocabulary};
  for (int row = 0; row < rows; ++row)
    if (std::uint64_t(task.targets[row]) >= std::uint64_t(vocabulary)) return false;
  Team(parallel, threads).run(kernels().cross_entropy, task, octavo::kNormPieces);
  return true;
}

void weight_gradient(Address parallel, int threads, Address out_gradient, Address in, std::ptrdiff_t out_stride,
                     std::ptrdiff_t in_stride, Address found, int rows, int outputs, int inputs, bool add, Address bias) {
  octavo::TrainingWeightGradient task{at<octavo::Bfloat>(out_gradient), at<octavo::Bfloat>(in), out_stride, in_stride,
                                      at<float>(found), rows, outputs, inputs, add, 0, 0, at<float>(bias)};
  octavo::choose_pieces(task, kernels().gradient_sizes, threads);
  Team(parallel, threads).run(kernels().weight_gradient, task, octavo::weight_gradient_pieces(task));
}

// left, left_stride; values, stride, weight_columns; transposed; low_left, low_left_stride, low_right, low_right_stride;
// out, out_stride; rows, inner, columns, rank; bias; whether in bytes, columns kept.
// nf4: of each part codes, absmax, scales, levels, outer, offset, begin, end.
void product(Address parallel, int threads, const nb::tuple& fields, const nb::tuple& nf4) {
  const auto address = [&](int i) { return nb::cast<Address>(fields[i]); };
  const auto number = [&](int i) { return nb::cast<std::ptrdiff_t>(fields[i]); };
  std::vector<octavo::TrainingNf4> parts;
  for (const auto& item : nf4) {
    const auto part = nb::cast<nb::tuple>(item);
    const auto place = [&](int i) { return nb::cast<Address>(part[i]); };
    parts.push_back({at<std::uint8_t>(place(0)), at<float>(place(1)), at<std::uint8_t>(place(2)), at<float>(place(3)),
                     at<float>(place(4)), nb::cast<float>(part[5]), nb::cast<int>(part[6]), nb::cast<int>(part[7])});
  }
  octavo::TrainingProduct task{at<octavo::Bfloat>(address(0)), number(1),
                               {at<octavo::Bfloat>(address(2)), number(3), parts.data(), int(number(4))}, number(5) != 0,
                               at<octavo::Bfloat>(address(6)), at<octavo::Bfloat>(address(8)), number(7), number(9),
                               at<octavo::Bfloat>(address(10)), number(11),
                               int(number(12)), int(number(13)), int(number(14)), int(number(15)),
                               0, 0, at<float>(address(16)), nullptr};
  const Team team(parallel, threads);
  const bool in_bytes = number(17) != 0;
  if (in_bytes) {
    if (!kernels().byte_product) throw nb::value_error("this processor's training kernels have no products in bytes");
    static thread_local octavo::ByteLeft left;
    const auto run = [&](auto kernel, const octavo::TrainingBytes& bytes) { team.run(kernel, bytes, octavo::kNormPieces); };
    task.bytes = left.fill(task, int(number(18)), kernels(), run);
  }
  octavo::choose_pieces(task, kernels().product_sizes, threads);
  team.run(in_bytes ? kernels().byte_product : kernels().product, task, octavo::product_pieces(task));
}

// Whether numbers below 2^-126 count as zero on these threads from now on; gives what held on this one before.
bool flush_denormals(Address parallel, int threads, bool flush) {
#if defined(__x86_64__)
  constexpr unsigned kFlush = 0x8040;  // of results, and of what is read
  const bool before = (_mm_getcsr() & kFlush) == kFlush;
  nb::gil_scoped_release unlocked;
  auto set = [&] { _mm_setcsr(flush ? _mm_getcsr() | kFlush : _mm_getcsr() & ~kFlush); };
  octavo::on_each_thread(at<void(void (*)(void*), void*, unsigned, unsigned)>(parallel), threads, set);
  return before;
#else
  return false;
#endif
}

void lower(Address parallel, int threads, Address in, Address out, std::size_t count) {
  const octavo::TrainingLowering task{at<float>(in), at<octavo::Bfloat>(out), count};
  Team(parallel, threads).run(kernels().lower, task, octavo::kNormPieces);
}

// pairs: of each down, up, rank, begin, end, scale.
void join_pairs(const nb::tuple& pairs, int inputs, int outputs, int rank, Address down, Address up) {
  std::vector<octavo::TrainingPair> found;
  for (const auto& item : pairs) {
    const auto pair = nb::cast<nb::tuple>(item);
    found.push_back({at<float>(nb::cast<Address>(pair[0])), at<float>(nb::cast<Address>(pair[1])), nb::cast<int>(pair[2]),
                     nb::cast<int>(pair[3]), nb::cast<int>(pair[4]), nb::cast<float>(pair[5])});
  }
  kernels().join_pairs({found.data(), int(found.size()), inputs, outputs, rank, at<octavo::Bfloat>(down), at<octavo::Bfloat>(up)});
}

// Packed frozen weights to float32 if `single`, else bfloat16; `blocks` are of 64 elements.
void unpack_nf4(Address parallel, int threads, Address codes, Address absmax, std::size_t blocks, Address out, bool single) {
  nb::gil_scoped_release unlocked;
  const auto begin = [&](int piece) { return blocks * std::size_t(piece) / octavo::kNormPieces; };
  octavo::run_pieces(at<void(void (*)(void*), void*, unsigned, unsigned)>(parallel), threads, octavo::kNormPieces, [&](int piece) {
    const auto unpack = [&](auto* to) {
      octavo::unpack_nf4(at<std::uint8_t>(codes), at<float>(absmax), begin(piece), begin(piece + 1), to);
    };
    single ? unpack(at<float>(out)) : unpack(at<octavo::Bfloat>(out));
  });
}

void unpack_blocks(Address parallel, int threads, int type, Address bytes, int rows, int columns, Address out, bool single) {
  const octavo::BlockType block = octavo::block_type(type);
  nb::gil_scoped_release unlocked;
  octavo::run_pieces(at<void(void (*)(void*), void*, unsigned, unsigned)>(parallel), threads, octavo::kNormPieces, [&](int piece) {
    std::vector<float> scratch(columns);
    for (int row = octavo::first_row(rows, piece); row < octavo::first_row(rows, piece + 1); ++row) {
      const std::uint8_t* in = at<std::uint8_t>(bytes) + octavo::row_bytes(block, columns) * row;
      const std::size_t to = std::size_t(columns) * row;
      if (single) octavo::dequantize_row(block, in, columns, at<float>(out) + to);
      else octavo::unpack_row(block, in, columns, scratch.data(), at<octavo::Bfloat>(out) + to);
    }
  });
}

}  // namespace

void bind_training(nb::module_& module) {
  module.def("trains_in_bfloat16", [] { return octavo::training_kernels() != nullptr; },
             "Whether this processor has the training kernels.");
  module.def("trains_in_bytes", [] { return octavo::training_kernels() && octavo::training_kernels()->byte_product; },
             "Whether they multiply with frozen weights in bytes.");
  module.def("training_kernels", [] { return std::string(octavo::training_kernels() ? octavo::training_kernels()->name : ""); },
             "The instruction set of the training kernels; empty without.");
  module.attr("TRAINING_PIECES") = octavo::kNormPieces;
  module.def("train_attention", &attention, "parallel"_a, "threads"_a, "fields"_a);
  module.def("train_attention_backward", &attention_backward, "parallel"_a, "threads"_a, "fields"_a);
  module.def("train_activation", &activation);
  module.def("train_norm", &norm);
  module.def("train_heads", &heads);
  module.def("train_cross_entropy", &cross_entropy);
  module.def("train_weight_gradient", &weight_gradient);
  module.def("train_product", &product, "parallel"_a, "threads"_a, "fields"_a, "nf4"_a);
  module.def("flush_denormals", &flush_denormals, "parallel"_a, "threads"_a, "flush"_a);
  module.def("train_lower", &lower, "parallel"_a, "threads"_a, "single"_a, "out"_a, "count"_a);
  module.def("train_join_pairs", &join_pairs, "pairs"_a, "inputs"_a, "outputs"_a, "rank"_a, "down"_a, "up"_a);
  module.def("unpack_nf4", &unpack_nf4, "parallel"_a, "threads"_a, "codes"_a, "absmax"_a, "blocks"_a, "out"_a, "single"_a);
  module.def("unpack_blocks", &unpack_blocks, "parallel"_a, "threads"_a, "type"_a, "bytes"_a, "rows"_a, "columns"_a, "out"_a, "single"_a);
}
