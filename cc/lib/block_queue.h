// Blocks of bytes that one thread gives to another, few at a time. Either may stop: then neither
// waits for the other.
#ifndef TF_SPARSE_EMB_CC_LIB_BLOCK_QUEUE_H_
#define TF_SPARSE_EMB_CC_LIB_BLOCK_QUEUE_H_

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <queue>
#include <utility>

namespace sparse_emb {

struct Block {
  std::shared_ptr<const char> data;
  int64_t size = 0;
};

class BlockQueue {
 public:
  // Waits while kMost blocks wait. False if the other has stopped: the block goes nowhere.
  bool Give(Block block) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return stopped_ || blocks_.size() < kMost; });
    if (stopped_) return false;
    if (block.size > 0) blocks_.push(std::move(block));
    changed_.notify_all();
    return true;
  }

  // Says that no block follows.
  void End() {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    changed_.notify_all();
  }

  // Waits for a block; of size 0: all have been taken, and that was the end. False if the other has
  // stopped before it.
  bool Take(Block* block) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return stopped_ || ended_ || !blocks_.empty(); });
    *block = {};
    if (stopped_ && !ended_) return false;
    if (blocks_.empty()) return true;
    *block = std::move(blocks_.front());
    blocks_.pop();
    changed_.notify_all();
    return true;
  }

  // Says that who calls will neither give nor take. What was given before End can still be taken.
  void Stop() {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    changed_.notify_all();
  }

 private:
  // One waits while each side has one in hand, so that they need not change in step.
  static constexpr size_t kMost = 1;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::queue<Block> blocks_;
  bool ended_ = false, stopped_ = false;
};

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_BLOCK_QUEUE_H_
