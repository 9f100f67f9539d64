#include "support/thread_pool.h"

#include <chrono>

#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif

namespace octavo {
namespace {

constexpr std::chrono::microseconds kSpin{50};

// A run was held up if thread 0 slept for more than this share of it.  After three in a row it runs alone for a few
// runs: one late wake-up, or a moment that the host took, is no busy neighbour.
constexpr double kHeldUp = 0.3;
constexpr int kPatience = 3, kAlone = 24;

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

double Epoch::wait_past(std::uint32_t seen) const {
  const auto begin = std::chrono::steady_clock::now(), deadline = begin + kSpin;
  do {
    for (int turn = 0; turn < 64; ++turn) {
      if (value_.load(std::memory_order_acquire) != seen) return 0.0;
      relax();
    }
  } while (std::chrono::steady_clock::now() < deadline);
  sleepers_.fetch_add(1, std::memory_order_seq_cst);
  while (value_.load(std::memory_order_seq_cst) == seen) value_.wait(seen, std::memory_order_seq_cst);
  sleepers_.fetch_sub(1, std::memory_order_relaxed);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

ThreadPool::ThreadPool(int threads) : threads_(threads < 1 ? 1 : threads), team_(threads_) { start(); }

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
    barrier(thread, [] {});
  }
}

void ThreadPool::run(const std::function<void(int)>& work) {
  if (process_id() != process_) {
    for (auto& thread : workers_) thread.detach();
    workers_.clear();
    start();
  }
  if (threads_ == 1 || alone_runs_ > 0) {
    if (alone_runs_ > 0) --alone_runs_;
    team_ = 1;
    work(0);
    return;
  }
  team_ = threads_;
  waited_ = 0.0;
  work_ = &work;
  const auto begin = std::chrono::steady_clock::now();
  start_epoch_.advance();
  work(0);
  barrier(0, [] {});
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const bool held_up = waited_ > kHeldUp * seconds;
  held_up_ = held_up ? held_up_ + 1 : 0;
  if (held_up_ >= kPatience) {
    alone_runs_ = kAlone;
    held_up_ = 0;
  }
}

}  // namespace octavo
