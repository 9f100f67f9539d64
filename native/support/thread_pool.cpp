#include "support/thread_pool.h"

#include <chrono>

#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif

namespace octavo {
namespace {

constexpr std::chrono::microseconds kSpin{50};

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

long process_id() {
#if defined(__unix__) || defined(__APPLE__)
  return getpid();
#else
  return 0;
#endif
}

}  // namespace

void Epoch::advance() {
  // The total order of these two operations against those in wait_past means that no sleeper is missed.
  value_.fetch_add(1, std::memory_order_seq_cst);
  if (sleepers_.load(std::memory_order_seq_cst) != 0) value_.notify_all();
}

void Epoch::wait_past(std::uint32_t seen) const {
  const auto deadline = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int turn = 0; turn < 64; ++turn) {
      if (value_.load(std::memory_order_acquire) != seen) return;
      relax();
    }
  } while (std::chrono::steady_clock::now() < deadline);
  sleepers_.fetch_add(1, std::memory_order_seq_cst);
  while (value_.load(std::memory_order_seq_cst) == seen) value_.wait(seen, std::memory_order_seq_cst);
  sleepers_.fetch_sub(1, std::memory_order_relaxed);
}

ThreadPool::ThreadPool(int threads) : threads_(threads < 1 ? 1 : threads) { start(); }

void ThreadPool::start() {
  process_ = process_id();
  arrived_.store(0);
  for (int thread = 1; thread < threads_; ++thread)
    workers_.emplace_back([this, thread, seen = start_epoch_.load()] { worker(thread, seen); });
}

ThreadPool::~ThreadPool() {
  if (process_id() != process_) {  // the threads stayed behind in the parent process
    for (auto& thread : workers_) thread.detach();
    return;
  }
  stopping_ = true;
  start_epoch_.advance();
  for (auto& thread : workers_) thread.join();
}

void ThreadPool::worker(int thread, std::uint32_t seen) {
  for (;;) {
    start_epoch_.wait_past(seen);
    ++seen;
    if (stopping_) return;
    (*work_)(thread);
    barrier([] {});
  }
}

void ThreadPool::run(const std::function<void(int)>& work) {
  if (process_id() != process_) {
    for (auto& thread : workers_) thread.detach();
    workers_.clear();
    start();
  }
  if (threads_ == 1) {
    work(0);
    return;
  }
  work_ = &work;
  start_epoch_.advance();
  work(0);
  barrier([] {});
}

}  // namespace octavo
