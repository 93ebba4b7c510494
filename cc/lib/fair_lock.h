// A lock that many readers share or one writer has alone, in the order in which they ask.
//
// glibc's shared_mutex lets new readers pass a waiting writer, so that two threads that read
// without a pause would keep it out for good. Here all queue at a gate.
#ifndef TF_SPARSE_EMB_CC_LIB_FAIR_LOCK_H_
#define TF_SPARSE_EMB_CC_LIB_FAIR_LOCK_H_

#include <mutex>
#include <shared_mutex>

namespace sparse_emb {

class FairLock {
 public:
  std::shared_lock<std::shared_mutex> Shared() {
    const std::lock_guard queue(gate_);
    return std::shared_lock(mutex_);
  }
  // A share if that can be had in microseconds, or a lock that owns nothing: for threads that have
  // other work, and must not wait for as long as someone saves a table.
  std::shared_lock<std::shared_mutex> TryShared() {
    constexpr int kTries = 1000;  // other readers have the gate for nanoseconds
    for (int i = 0; i < kTries; ++i) {
      const std::unique_lock queue(gate_, std::try_to_lock);
      if (queue.owns_lock()) return std::shared_lock(mutex_, std::try_to_lock);
    }
    return {};
  }
  std::unique_lock<std::shared_mutex> Alone() {
    const std::lock_guard queue(gate_);
    return std::unique_lock(mutex_);
  }

 private:
  std::mutex gate_;  // taken before mutex_, and given back when that is held
  std::shared_mutex mutex_;
};

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_FAIR_LOCK_H_
