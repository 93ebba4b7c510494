// Bytes that begin at a cache line: a block of their own, or a part of an arena in huge pages.
#ifndef TF_SPARSE_EMB_CC_LIB_ARENA_BUFFER_H_
#define TF_SPARSE_EMB_CC_LIB_ARENA_BUFFER_H_

#include <cstdint>
#include <memory>
#include <utility>

#include "cc/lib/aligned_buffer.h"
#include "cc/lib/huge_pages.h"

namespace sparse_emb {

class ArenaBuffer {
 public:
  ArenaBuffer() = default;

  // With an arena or without; throws std::bad_alloc. Only a block of its own is zeros.
  ArenaBuffer(int64_t bytes, std::shared_ptr<ChunkArena> arena) : arena_(std::move(arena)) {
    if (arena_ == nullptr) {
      block_ = AlignedBuffer(bytes);
      data_ = block_.data();
    } else {
      size_ = (bytes + 63) / 64 * 64;
      data_ = arena_->Allocate(size_);
    }
  }

  ArenaBuffer(ArenaBuffer&& other) noexcept { Swap(&other); }
  ArenaBuffer& operator=(ArenaBuffer&& other) noexcept {
    ArenaBuffer old(std::move(*this));
    Swap(&other);
    return *this;
  }

  ~ArenaBuffer() {
    if (arena_ != nullptr && data_ != nullptr) arena_->Free(data_, size_);
  }

  char* data() const { return data_; }
  int64_t size() const { return arena_ == nullptr ? block_.size() : size_; }

 private:
  void Swap(ArenaBuffer* other) {
    std::swap(block_, other->block_);
    std::swap(arena_, other->arena_);
    std::swap(data_, other->data_);
    std::swap(size_, other->size_);
  }

  char* data_ = nullptr;
  int64_t size_ = 0;
  AlignedBuffer block_;
  std::shared_ptr<ChunkArena> arena_;
};

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_ARENA_BUFFER_H_
