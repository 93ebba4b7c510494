// A stream of bytes that goes through a BlockQueue.
#ifndef TF_SPARSE_EMB_CC_LIB_BLOCK_STREAM_H_
#define TF_SPARSE_EMB_CC_LIB_BLOCK_STREAM_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "cc/lib/aligned_buffer.h"
#include "cc/lib/block_queue.h"
#include "cc/lib/byte_stream.h"
#include "cc/lib/status.h"

namespace sparse_emb {

// Buffers of one size. Those that nobody holds any more are given again: memory that is new to a
// process costs more than what is copied into it.
class BufferPool : public std::enable_shared_from_this<BufferPool> {
 public:
  explicit BufferPool(int64_t bytes) : bytes_(bytes) {}

  // Throws std::bad_alloc.
  std::shared_ptr<char> Get() {
    const auto put = [pool = shared_from_this()](AlignedBuffer* buffer) {
      pool->Put(std::move(*buffer));
      delete buffer;
    };
    const std::shared_ptr<AlignedBuffer> buffer(new AlignedBuffer(Unused()), put);
    if (buffer->size() == 0) *buffer = AlignedBuffer(bytes_);
    return {buffer, buffer->data()};
  }

 private:
  AlignedBuffer Unused() {
    const std::lock_guard lock(mutex_);
    for (AlignedBuffer& buffer : unused_) {
      if (buffer.size() > 0) return std::move(buffer);
    }
    return {};
  }

  void Put(AlignedBuffer put) {
    const std::lock_guard lock(mutex_);
    for (AlignedBuffer& buffer : unused_) {
      if (buffer.size() > 0) continue;
      buffer = std::move(put);
      return;
    }
  }

  const int64_t bytes_;
  std::mutex mutex_;
  AlignedBuffer unused_[4];  // of size 0: none
};

// Cuts what is written into blocks of one size, but for the last.
class BlockSink final : public ByteSink {
 public:
  BlockSink(BlockQueue* queue, int64_t block_bytes)
      : queue_(queue),
        block_bytes_(block_bytes),
        buffers_(std::make_shared<BufferPool>(block_bytes)) {}

  Status Write(std::initializer_list<Bytes> pieces) override {
    for (const Bytes& piece : pieces) {
      for (int64_t done = 0; done < piece.size;) {
        if (block_ == nullptr) block_ = buffers_->Get();
        const int64_t part = std::min(piece.size - done, block_bytes_ - filled_);
        std::memcpy(block_.get() + filled_, static_cast<const char*>(piece.data) + done, part);
        filled_ += part;
        done += part;
        if (filled_ == block_bytes_) SPARSE_EMB_RETURN_IF_ERROR(Give());
      }
    }
    return {};
  }

  // Nothing follows.
  Status End() {
    SPARSE_EMB_RETURN_IF_ERROR(Give());
    queue_->End();
    return {};
  }

 private:
  Status Give() {
    if (queue_->Give({std::move(block_), std::exchange(filled_, 0)})) return {};
    return Error(Code::kUnavailable, "nobody takes the blocks of the table");
  }

  BlockQueue* const queue_;
  const int64_t block_bytes_;
  const std::shared_ptr<BufferPool> buffers_;
  std::shared_ptr<char> block_;
  int64_t filled_ = 0;
};

class BlockSource final : public ByteSource {
 public:
  // `name` stands for the bytes in errors.
  BlockSource(BlockQueue* queue, std::string name) : queue_(queue), name_(std::move(name)) {}

  Status Read(void* data, int64_t bytes, int64_t* got) override {
    for (*got = 0; *got < bytes;) {
      if (read_ == block_.size) {
        block_ = {};  // not kept while this waits
        read_ = 0;
        if (!queue_->Take(&block_)) {
          return Error(Code::kUnavailable, name_, " was not read to its end");
        }
        if (block_.size == 0) break;
      }
      const int64_t part = std::min(bytes - *got, block_.size - read_);
      std::memcpy(static_cast<char*>(data) + *got, block_.data.get() + read_, part);
      read_ += part;
      *got += part;
    }
    return {};
  }

 private:
  BlockQueue* const queue_;
  const std::string name_;
  Block block_;
  int64_t read_ = 0;
};

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_BLOCK_STREAM_H_
