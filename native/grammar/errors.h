// The ways in which following a grammar can fail; the bindings raise them as octavo.grammar's errors.
#pragma once

#include <stdexcept>

namespace octavo::grammar {

struct TooComplex : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Unsupported : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace octavo::grammar
