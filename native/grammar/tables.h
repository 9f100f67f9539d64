// Tables of 256 transitions, by the hundred: taken from slabs that grammars of one vocabulary hand on to each other, so
// that a fresh grammar finds warm memory and asks the system for none.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace octavo::grammar {

using ByteTable = std::array<std::int32_t, 256>;

class TablePool {
 public:
  static constexpr std::size_t kTables = 64;  // in a slab
  using Slab = std::unique_ptr<ByteTable[]>;

  Slab take() {
    const std::lock_guard lock(mutex_);
    if (free_.empty()) return Slab(new ByteTable[kTables]);
    Slab slab = std::move(free_.back());
    free_.pop_back();
    return slab;
  }
  void give(std::vector<Slab>& slabs) {
    const std::lock_guard lock(mutex_);
    for (Slab& slab : slabs)
      if (free_.size() < kKept) free_.push_back(std::move(slab));
    slabs.clear();
  }

 private:
  static constexpr std::size_t kKept = 256;  // 16 MB
  std::mutex mutex_;
  std::vector<Slab> free_;
};

// The tables of one automaton.
class Tables {
 public:
  explicit Tables(std::shared_ptr<TablePool> pool) : pool_(std::move(pool)) {}
  ~Tables() { pool_->give(slabs_); }
  Tables(const Tables&) = delete;
  ByteTable* make(std::int32_t value) {
    if (used_ == TablePool::kTables || slabs_.empty()) {
      slabs_.push_back(pool_->take());
      used_ = 0;
    }
    ByteTable* table = &slabs_.back()[used_++];
    table->fill(value);
    return table;
  }
  std::size_t bytes() const { return slabs_.size() * TablePool::kTables * sizeof(ByteTable); }

 private:
  std::shared_ptr<TablePool> pool_;
  std::vector<TablePool::Slab> slabs_;
  std::size_t used_ = 0;
};

}  // namespace octavo::grammar
