// How much may still be done at once.  A grammar that asks for more ends in an error instead of a long wait; what counts
// is work, not time, so that the same text ends the same way on every machine.
#pragma once

#include <cstdint>

#include "grammar/errors.h"

namespace octavo::grammar {

// Of this thread.  One step is some 10 to 100 ns: what following a token of the vocabulary by one byte takes.
class Allowance {
 public:
  explicit Allowance(std::int64_t steps) : outer_(left_) {
    if (left_ == kUnbounded) left_ = steps;  // inside another allowance that one counts
  }
  ~Allowance() {
    if (outer_ == kUnbounded) left_ = kUnbounded;
  }
  Allowance(const Allowance&) = delete;
  static void spend(std::int64_t steps) {
    if (left_ == kUnbounded) return;
    left_ -= steps;
    if (left_ < 0) throw TooComplex("the grammar needs more work at one place than its limit allows");
  }
  static std::int64_t left() { return left_; }

 private:
  static constexpr std::int64_t kUnbounded = INT64_MAX;
  inline static thread_local std::int64_t left_ = kUnbounded;
  std::int64_t outer_;
};

// What operations cost, in steps.
constexpr std::int64_t kMoveCost = 10;      // one interval of a derivative
constexpr std::int64_t kTermCost = 60;      // a new expression
constexpr std::int64_t kMemberCost = 8;     // one part of an `or` or an `and`
constexpr std::int64_t kPairCost = 12;      // one place of a state, closed over calls
constexpr std::int64_t kNetworkCost = 200;  // asking Python

}  // namespace octavo::grammar
