// A fixed-size buffer on a cache-line boundary.  Fresh memory is zero and is taken lazily by the system.
#pragma once
#include <cstddef>
#include <cstdlib>
#include <new>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace octavo {

template <class T>
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(std::size_t count) : count_(count) {
    if (count == 0) return;
    if (count > SIZE_MAX / sizeof(T) - 4096) throw std::bad_alloc();
    bytes_ = (count * sizeof(T) + 4095) / 4096 * 4096;
#if defined(__linux__)
    void* memory = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    // Large pages where the system gives them freely: fewer misses in the address cache while weights stream by.
    if (bytes_ >= (std::size_t(4) << 20)) madvise(memory, bytes_, MADV_HUGEPAGE);
    data_ = static_cast<T*>(memory);
#else
    data_ = static_cast<T*>(std::aligned_alloc(4096, bytes_));
    if (!data_) throw std::bad_alloc();
    __builtin_memset(data_, 0, bytes_);
#endif
  }
  AlignedBuffer(AlignedBuffer&& other) noexcept { swap(other); }
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    swap(other);
    return *this;
  }
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;
  ~AlignedBuffer() {
#if defined(__linux__)
    if (data_) munmap(data_, bytes_);
#else
    std::free(data_);
#endif
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  std::size_t size() const { return count_; }
  T& operator[](std::size_t index) { return data_[index]; }
  const T& operator[](std::size_t index) const { return data_[index]; }

 private:
  void swap(AlignedBuffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(count_, other.count_);
    std::swap(bytes_, other.bytes_);
  }
  T* data_ = nullptr;
  std::size_t count_ = 0;
  std::size_t bytes_ = 0;
};

}  // namespace octavo
