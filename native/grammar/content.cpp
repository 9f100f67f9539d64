#include "grammar/content.h"

#include <atomic>
#include <random>

namespace octavo::grammar {

std::uint64_t content_seed() {
  static const std::uint64_t seed = [] {
    std::random_device device;
    return (std::uint64_t(device()) << 32) ^ device();
  }();
  return seed;
}

std::uint64_t unique_number() {
  static std::atomic<std::uint64_t> next{1};
  return next++;
}

}  // namespace octavo::grammar
