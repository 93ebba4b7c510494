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
