// Runs pieces of work on the threads of the OpenMP runtime that PyTorch has loaded.
//
// A team of our own would not do here: its threads and those of PyTorch, which spin between operations, would take the
// cores from each other.  The runtime is not linked but found in the process (src/octavo/layers/native_training.py).
#pragma once
#include <atomic>
#include <cstdint>

namespace octavo {

// GOMP_parallel of libgomp, which LLVM's and Intel's runtimes have too: calls function(data) on each thread.
using OpenMpParallel = void (*)(void (*function)(void*), void* data, unsigned threads, unsigned flags);

// Calls work(piece) once for each piece below count, on `threads` threads; on this one where `parallel` is null.
template <class Work>
void run_pieces(OpenMpParallel parallel, int threads, int count, Work&& work) {
  struct Shared {
    Work& work;
    int count;
    std::atomic<int> next{0};
  } shared{work, count};
  const auto body = [](void* data) {
    Shared& all = *static_cast<Shared*>(data);
    for (int piece; (piece = all.next.fetch_add(1, std::memory_order_relaxed)) < all.count;) all.work(piece);
  };
  if (parallel && threads > 1)
    parallel(body, &shared, unsigned(threads), 0);
  else
    body(&shared);
}

// Calls work() once on each of the threads.
template <class Work>
void on_each_thread(OpenMpParallel parallel, int threads, Work work) {
  const auto body = [](void* data) { (*static_cast<Work*>(data))(); };
  if (parallel && threads > 1)
    parallel(body, &work, unsigned(threads), 0);
  else
    body(&work);
}

}  // namespace octavo
