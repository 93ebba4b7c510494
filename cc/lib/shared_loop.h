// A loop that threads of a pool do for the thread that calls it.
//
// It is cut into ranges, and each helper takes the next range until none is left. The caller sleeps
// meanwhile: a helper that it wakes while it works itself tends to be put on its own processor,
// where it waits (measured: docs/design.md). Where no helper comes, for all are busy or there is no
// memory for one, the caller does the loop; one that comes too late has cost nothing.
#ifndef TF_SPARSE_EMB_CC_LIB_SHARED_LOOP_H_
#define TF_SPARSE_EMB_CC_LIB_SHARED_LOOP_H_

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <new>

#include "cc/lib/can_throw.h"
#include "cc/lib/worker_pool.h"

namespace sparse_emb {

class SharedLoop {
 public:
  // Calls fn on ranges that cover [0, total), on up to `threads` threads: as many as `cost`, the
  // rough time of a unit in nanoseconds, makes worth it, of those that schedule(helper) finds, or
  // the caller's. schedule may throw std::bad_alloc. Where fn does, this does when all ranges were
  // tried.
  template <class Schedule>
  static void Run(int64_t total, int64_t cost, int threads, const RangeFn& fn,
                  const Schedule& schedule) {
    if (total <= 0) return;
    const double busy_threads = static_cast<double>(total) * cost / kWorthAThread;
    if (busy_threads < threads) threads = static_cast<int>(busy_threads);
    if (threads <= 1 || total == 1) return fn(0, total);

    std::shared_ptr<SharedLoop> loop;
    int helpers = 0;
    try {
      loop = std::make_shared<SharedLoop>(total, threads, fn);
      for (; helpers < threads; ++helpers) {
        schedule([loop] {
          if (CanThrow()) loop->Work();
        });
      }
    } catch (const std::bad_alloc&) {
      if (loop == nullptr) return fn(0, total);
    }
    if (helpers == 0 || !loop->HasHelp()) loop->Work();
    loop->Wait();
    if (loop->no_memory_) throw std::bad_alloc();
  }

  SharedLoop(int64_t total, int threads, const RangeFn& fn)
      : fn_(fn), total_(total), range_(1 + (total - 1) / (kRangesPerThread * threads)) {}

 private:
  static constexpr double kWorthAThread = 1e5;  // it takes microseconds to wake
  static constexpr int kRangesPerThread = 8;    // so that none waits long for the last
  static constexpr std::chrono::milliseconds kPatience{1};

  void Work() {
    int64_t done = 0;
    for (;;) {
      const int64_t begin = next_.fetch_add(range_, std::memory_order_relaxed);
      if (begin >= total_) break;
      const int64_t end = std::min(begin + range_, total_);
      try {
        fn_(begin, end);
      } catch (const std::bad_alloc&) {
        no_memory_ = true;
      }
      done += end - begin;
    }
    if (done == 0) return;  // the caller may have returned, and fn_ with it
    const std::lock_guard lock(mutex_);
    done_ += done;
    if (done_ == total_) all_done_.notify_one();
  }

  // False if none has begun in a while.
  bool HasHelp() {
    std::unique_lock lock(mutex_);
    all_done_.wait_for(lock, kPatience, [this] { return done_ == total_; });
    return next_.load(std::memory_order_relaxed) > 0;
  }

  void Wait() {
    std::unique_lock lock(mutex_);
    all_done_.wait(lock, [this] { return done_ == total_; });
  }

  const RangeFn fn_;
  const int64_t total_;
  const int64_t range_;
  std::atomic<int64_t> next_{0};
  std::atomic<bool> no_memory_{false};
  std::mutex mutex_;
  std::condition_variable all_done_;
  int64_t done_ = 0;
};

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_SHARED_LOOP_H_
