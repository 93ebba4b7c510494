// Zeroed bytes that begin at a cache line.
#ifndef TF_SPARSE_EMB_CC_LIB_ALIGNED_BUFFER_H_
#define TF_SPARSE_EMB_CC_LIB_ALIGNED_BUFFER_H_

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <utility>

namespace sparse_emb {

class AlignedBuffer {
 public:
  AlignedBuffer() = default;

  // Throws std::bad_alloc. calloc, because it takes large blocks from the system as they are,
  // already zero and without a page in memory until one is written.
  explicit AlignedBuffer(int64_t bytes) : size_(bytes) {
    if (bytes == 0) return;
    block_.reset(std::calloc(static_cast<size_t>(bytes) + kAlignment, 1));
    if (block_ == nullptr) throw std::bad_alloc();
    const uintptr_t address = reinterpret_cast<uintptr_t>(block_.get());
    data_ = reinterpret_cast<char*>((address + kAlignment - 1) / kAlignment * kAlignment);
  }

  AlignedBuffer(AlignedBuffer&& other) noexcept { *this = std::move(other); }
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    block_ = std::move(other.block_);
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
    return *this;
  }

  char* data() const { return data_; }
  int64_t size() const { return size_; }

 private:
  static constexpr uintptr_t kAlignment = 64;

  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  std::unique_ptr<void, Free> block_;
  char* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_ALIGNED_BUFFER_H_
