// Zeroed bytes that begin at a cache line; large ones in huge pages.
#ifndef TF_SPARSE_EMB_CC_LIB_ALIGNED_BUFFER_H_
#define TF_SPARSE_EMB_CC_LIB_ALIGNED_BUFFER_H_

#include <cstdint>
#include <cstdlib>
#include <new>
#include <utility>

#include "cc/lib/huge_pages.h"

namespace sparse_emb {

// The bytes of `count` things; throws std::bad_alloc if an int64 does not count them.
inline int64_t BytesOf(int64_t count, int64_t bytes_each) {
  int64_t bytes;
  if (__builtin_mul_overflow(count, bytes_each, &bytes)) throw std::bad_alloc();
  return bytes;
}

class AlignedBuffer {
 public:
  AlignedBuffer() = default;

  // Throws std::bad_alloc. calloc, because it takes large blocks from the system as they are,
  // already zero and without a page in memory until one is written.
  explicit AlignedBuffer(int64_t bytes) : size_(bytes) {
    if (bytes == 0) return;
    if (bytes >= kHugePageBytes) {
      data_ = MapHuge(bytes);
      if (data_ == nullptr) throw std::bad_alloc();
      return;
    }
    block_ = std::calloc(static_cast<size_t>(bytes) + kAlignment, 1);
    if (block_ == nullptr) throw std::bad_alloc();
    const uintptr_t address = reinterpret_cast<uintptr_t>(block_);
    data_ = reinterpret_cast<char*>((address + kAlignment - 1) / kAlignment * kAlignment);
  }

  AlignedBuffer(AlignedBuffer&& other) noexcept { Swap(&other); }
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    AlignedBuffer old(std::move(*this));
    Swap(&other);
    return *this;
  }

  ~AlignedBuffer() {
    if (block_ != nullptr) {
      std::free(block_);
    } else if (data_ != nullptr) {
      Unmap(data_, size_);
    }
  }

  char* data() const { return data_; }
  int64_t size() const { return size_; }

 private:
  static constexpr uintptr_t kAlignment = 64;

  void Swap(AlignedBuffer* other) {
    std::swap(block_, other->block_);
    std::swap(data_, other->data_);
    std::swap(size_, other->size_);
  }

  void* block_ = nullptr;  // of calloc; null where data_ is mapped
  char* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_ALIGNED_BUFFER_H_
