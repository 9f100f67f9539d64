// A small team of threads that runs one function together, with barriers inside it.
//
// Waiting spins for some tens of microseconds (a phase of a step is shorter than a sleep and a wake-up) and then
// sleeps in the kernel: a core that another process wants is given up, and the system may move the late thread to it.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

namespace octavo {

// An epoch counter that can be waited for: spin first, then sleep.
class Epoch {
 public:
  std::uint32_t load() const { return value_.load(std::memory_order_acquire); }
  void advance();
  // Returns the seconds that it took, 0 where spinning was enough.
  double wait_past(std::uint32_t seen) const;

 private:
  alignas(64) std::atomic<std::uint32_t> value_{0};
  mutable std::atomic<std::uint32_t> sleepers_{0};
};

// How the pieces of a sweep are shared out: each thread goes through a stretch of its own, in order, so that it reads
// memory as one stream; when it is done it takes pieces from the others' stretches, so that a late thread, whose core
// another process may have, holds nobody up for more than a piece.
class WorkShare {
 public:
  explicit WorkShare(int threads) : threads_(threads), next_(threads) {}

  // By one thread while the others wait.
  void reset() {
    for (auto& counter : next_) counter.value.store(0, std::memory_order_relaxed);
  }
  int first(int thread, int count) const { return int(std::int64_t(count) * thread / threads_); }

  template <class Work>
  void share(int thread, int count, Work&& work) {
    for (int turn = 0; turn < threads_; ++turn) {
      const int owner = (thread + turn) % threads_;
      const int begin = first(owner, count), end = first(owner + 1, count);
      for (int piece; (piece = begin + next_[owner].value.fetch_add(1, std::memory_order_relaxed)) < end;) work(piece);
    }
  }

 private:
  struct alignas(64) Counter { std::atomic<int> value{0}; };
  int threads_;
  std::vector<Counter> next_;
};

class ThreadPool {
 public:
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }

  // Calls work(thread) once on each thread of a team, the caller being thread 0, and returns when all have come back.
  // The team is all threads, or the caller alone for a while after a run in which the others kept it waiting: another
  // process has a core, and one thread gets on better than two of which one stands still.
  void run(const std::function<void(int)>& work);

  // To be called by every thread of a run.  The last to arrive calls `last` alone, then all go on.
  template <class Last>
  void barrier(int thread, Last&& last) {
    const std::uint32_t seen = barrier_epoch_.load();
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == team_) {
      arrived_.store(0, std::memory_order_relaxed);
      last();
      barrier_epoch_.advance();
    } else {
      const double waited = barrier_epoch_.wait_past(seen);
      if (thread == 0) waited_ += waited;
    }
  }

  // Shares out `count` pieces: work(piece) is called once for each, by whichever thread is free.
  template <class Work>
  void for_each(int count, Work&& work) {
    std::atomic<int> next{0};
    run([&](int) {
      for (int piece; (piece = next.fetch_add(1, std::memory_order_relaxed)) < count;) work(piece);
    });
  }

 private:
  void start();
  void worker(int thread, std::uint32_t seen);

  int threads_;
  int team_;             // threads of the run that is under way
  int alone_runs_ = 0;   // that are still to come
  int held_up_ = 0;      // runs in a row in which thread 0 was kept waiting
  double waited_ = 0.0;  // seconds that thread 0 slept at barriers of this run
  long process_ = 0;  // a forked child has no workers: it starts its own
  std::vector<std::thread> workers_;
  const std::function<void(int)>* work_ = nullptr;
  std::atomic<bool> stopping_{false};
  Epoch start_epoch_;
  Epoch barrier_epoch_;
  alignas(64) std::atomic<int> arrived_{0};
};

}  // namespace octavo
