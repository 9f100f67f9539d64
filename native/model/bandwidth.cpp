#include <atomic>
#include <chrono>

#include "model/model.h"

namespace octavo {

double measure_bandwidth(int threads, int megabytes, double seconds) {
  using Clock = std::chrono::steady_clock;
  constexpr std::size_t kPiece = 1 << 20;  // bytes
  const std::size_t pieces = std::size_t(megabytes);
  AlignedBuffer<std::uint64_t> memory(pieces * kPiece / 8);
  ThreadPool pool(threads);
  pool.for_each(int(pieces), [&](int piece) {
    for (std::size_t i = 0; i < kPiece / 8; ++i) memory[piece * (kPiece / 8) + i] = i;
  });
  std::atomic<std::uint64_t> sink{0};
  double best = 0;
  const auto begin = Clock::now();
  do {
    const auto start = Clock::now();
    pool.for_each(int(pieces), [&](int piece) {
      const std::uint64_t* words = memory.data() + piece * (kPiece / 8);
      std::uint64_t sums[8] = {};
      for (std::size_t i = 0; i < kPiece / 8; i += 8)
        for (int j = 0; j < 8; ++j) sums[j] ^= words[i + j];
      std::uint64_t sum = 0;
      for (std::uint64_t value : sums) sum ^= value;
      sink.fetch_xor(sum, std::memory_order_relaxed);
    });
    const double elapsed = std::chrono::duration<double>(Clock::now() - start).count();
    const double rate = double(pieces * kPiece) / elapsed / 1e9;
    if (rate > best) best = rate;
  } while (std::chrono::duration<double>(Clock::now() - begin).count() < seconds);
  return best;
}

}  // namespace octavo
