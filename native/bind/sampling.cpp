// The sampler.  Everything that indexes memory is checked here, with the interpreter's lock held; then it is released.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <cstdint>
#include <optional>

#include "ops/sampling.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

template <class T, int Dimensions>
using Array = nb::ndarray<T, nb::ndim<Dimensions>, nb::c_contig, nb::device::cpu>;

void require(bool condition, const char* what) {
  if (!condition) throw nb::value_error(what);
}

void check_offsets(const Array<const std::int64_t, 1>& offsets, std::size_t rows, std::size_t length, const char* what) {
  bool good = offsets.size() == rows + 1 && offsets.data()[0] == 0;
  for (std::size_t row = 0; good && row < rows; ++row) good = offsets.data()[row] <= offsets.data()[row + 1];
  require(good && offsets.data()[rows] == std::int64_t(length), what);
}

void check_tokens(const Array<const std::int32_t, 1>& tokens, std::size_t vocabulary, const char* what) {
  bool good = true;
  for (std::size_t i = 0; i < tokens.size(); ++i) good &= std::uint32_t(tokens.data()[i]) < vocabulary;
  require(good, what);
}

using Mask = std::optional<Array<const std::int32_t, 2>>;

// Everything but the tokens: what `sample` draws from and `distribution` writes down.
octavo::SamplingInput checked_input(const Array<const float, 2>& logits, const Array<const std::uint8_t, 2>& parameters,
                                    const Array<const std::int32_t, 1>& positions,
                                    const Array<const std::int32_t, 1>& history,
                                    const Array<const std::int64_t, 1>& history_offsets,
                                    const Array<const std::int32_t, 1>& bias_tokens,
                                    const Array<const float, 1>& bias_values,
                                    const Array<const std::int64_t, 1>& bias_offsets, const Mask& mask) {
  const std::size_t rows = logits.shape(0), vocabulary = logits.shape(1);
  require(vocabulary > 0 && vocabulary <= std::size_t(octavo::kMaxVocabulary),
          "the sampler takes a vocabulary of 1 to 1,048,576 tokens");
  require(parameters.shape(0) == rows && parameters.shape(1) == sizeof(octavo::SamplingParameters) &&
              reinterpret_cast<std::uintptr_t>(parameters.data()) % alignof(octavo::SamplingParameters) == 0,
          "parameters must have one aligned record of 64 bytes for each row of logits");
  require(positions.size() == rows, "positions must have one entry for each row");
  require(bias_values.size() == bias_tokens.size(), "bias_tokens and bias_values must have one length");
  check_offsets(history_offsets, rows, history.size(), "history_offsets must rise from 0 to the length of history");
  check_offsets(bias_offsets, rows, bias_tokens.size(), "bias_offsets must rise from 0 to the length of bias_tokens");
  check_tokens(history, vocabulary, "history holds a token outside the vocabulary");
  check_tokens(bias_tokens, vocabulary, "bias_tokens holds a token outside the vocabulary");
  require(!mask || (mask->shape(0) == rows && mask->shape(1) == (vocabulary + 31) / 32),
          "mask must have the shape [rows, ceil(vocabulary / 32)]");
  return {logits.data(), std::int32_t(rows), std::int32_t(vocabulary),
          reinterpret_cast<const octavo::SamplingParameters*>(parameters.data()), positions.data(), history.data(),
          history_offsets.data(), bias_tokens.data(), bias_values.data(), bias_offsets.data(),
          mask ? reinterpret_cast<const std::uint32_t*>(mask->data()) : nullptr};
}

std::int32_t sample(const Array<const float, 2>& logits, const Array<const std::uint8_t, 2>& parameters,
                    const Array<const std::int32_t, 1>& positions, const Array<const std::int32_t, 1>& history,
                    const Array<const std::int64_t, 1>& history_offsets, const Array<const std::int32_t, 1>& bias_tokens,
                    const Array<const float, 1>& bias_values, const Array<const std::int64_t, 1>& bias_offsets,
                    const Mask& mask, const Array<std::int32_t, 1>& tokens) {
  const octavo::SamplingInput input = checked_input(logits, parameters, positions, history, history_offsets, bias_tokens,
                                                    bias_values, bias_offsets, mask);
  require(tokens.size() == logits.shape(0), "positions and tokens must have one entry for each row");
  nb::gil_scoped_release unlocked;
  return octavo::sample(input, tokens.data());
}

std::int32_t distribution(const Array<const float, 2>& logits, const Array<const std::uint8_t, 2>& parameters,
                          const Array<const std::int32_t, 1>& positions, const Array<const std::int32_t, 1>& history,
                          const Array<const std::int64_t, 1>& history_offsets,
                          const Array<const std::int32_t, 1>& bias_tokens, const Array<const float, 1>& bias_values,
                          const Array<const std::int64_t, 1>& bias_offsets, const Mask& mask,
                          const Array<double, 2>& probabilities) {
  const octavo::SamplingInput input = checked_input(logits, parameters, positions, history, history_offsets, bias_tokens,
                                                    bias_values, bias_offsets, mask);
  require(probabilities.shape(0) == logits.shape(0) && probabilities.shape(1) == logits.shape(1),
          "probabilities must have the shape of the logits");
  nb::gil_scoped_release unlocked;
  return octavo::distribution(input, probabilities.data());
}

void gumbel(std::uint64_t seed, std::int32_t position, const Array<const std::int32_t, 1>& tokens,
            const Array<double, 1>& noise) {
  require(noise.size() == tokens.size(), "noise must have one entry for each token");
  octavo::gumbel(seed, position, tokens.data(), tokens.size(), noise.data());
}

bool top_logprobs(const Array<const float, 2>& logits, const Array<const std::int32_t, 1>& chosen,
                  const Array<float, 1>& chosen_values, const Array<std::int32_t, 2>& tokens,
                  const Array<float, 2>& values) {
  const std::size_t rows = logits.shape(0), vocabulary = logits.shape(1), count = tokens.shape(1);
  require(vocabulary > 0 && vocabulary <= std::size_t(octavo::kMaxVocabulary),
          "the sampler takes a vocabulary of 1 to 1,048,576 tokens");
  require(count <= vocabulary, "there are not that many tokens in the vocabulary");
  require(chosen.size() == rows && chosen_values.size() == rows && tokens.shape(0) == rows &&
              values.shape(0) == rows && values.shape(1) == count,
          "chosen, tokens and values must have one entry for each row of logits");
  check_tokens(chosen, vocabulary, "chosen holds a token outside the vocabulary");
  nb::gil_scoped_release unlocked;
  bool good = true;
  for (std::size_t row = 0; row < rows; ++row)
    good &= octavo::log_probabilities(logits.data() + row * vocabulary, std::int32_t(vocabulary), chosen.data()[row],
                                      std::int32_t(count), chosen_values.data() + row, tokens.data() + row * count,
                                      values.data() + row * count);
  return good;
}

}  // namespace

void bind_sampling(nb::module_& module) {
  module.def("sample", &sample, "logits"_a, "parameters"_a, "positions"_a, "history"_a, "history_offsets"_a,
             "bias_tokens"_a, "bias_values"_a, "bias_offsets"_a, "mask"_a.none(), "tokens"_a,
             "Draws a token for each row of logits; see decoding/sampling.py.  Returns how many rows failed: those have "
             "-1 (a NaN or an infinity) or -2 (nothing allowed) for a token.");
  module.def("distribution", &distribution, "logits"_a, "parameters"_a, "positions"_a, "history"_a, "history_offsets"_a,
             "bias_tokens"_a, "bias_values"_a, "bias_offsets"_a, "mask"_a.none(), "probabilities"_a,
             "Writes the law that `sample` draws each row from, float64 [R, V]; zeros for those that fail, which it counts.");
  module.def("gumbel", &gumbel, "seed"_a, "position"_a, "tokens"_a, "noise"_a,
             "Writes the noise float64 of each token, as the draw uses it.");
  module.def("top_logprobs", &top_logprobs, "logits"_a, "chosen"_a, "chosen_values"_a, "tokens"_a, "values"_a,
             "Writes log-probabilities; see decoding/sampling.py.  False where a row has a NaN or an infinity.");
}
