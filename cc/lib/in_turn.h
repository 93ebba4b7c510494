// Jobs 0, 1, 2, ... that threads do at once, but for the last part of each, which is done in the
// order of the jobs.
#ifndef TF_SPARSE_EMB_CC_LIB_IN_TURN_H_
#define TF_SPARSE_EMB_CC_LIB_IN_TURN_H_

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "cc/lib/can_throw.h"
#include "cc/lib/status.h"

namespace sparse_emb {

class InTurn {
 public:
  // Returns when all jobs before this one are done; the first error among theirs.
  Status Wait(int64_t job) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return done_ == job; });
    return status_;
  }

  // Says, in its turn, that a job is done or has failed. Of every job this is said once.
  void Done(int64_t job, Status status) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return done_ == job; });
    if (status_.ok()) status_ = std::move(status);
    ++done_;
    changed_.notify_all();
  }

  // The first error of the jobs that are done.
  Status status() {
    const std::lock_guard lock(mutex_);
    return status_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int64_t done_ = 0;  // jobs
  Status status_;
};

// A job's turn.
class Turn {
 public:
  Turn() = default;  // of a job that is alone
  Turn(InTurn* jobs, int64_t job) : jobs_(jobs), job_(job) {}
  Status Wait() const { return jobs_ == nullptr ? Status() : jobs_->Wait(job_); }

 private:
  InTurn* const jobs_ = nullptr;
  const int64_t job_ = 0;
};

// Calls fn() on this thread and at the same time on others of its own, `threads` in all or as many
// as the system gives, and returns when all have returned. They may wait for each other's earlier
// jobs and for files, so they are none of a pool. fn throws nothing.
template <class Fn>
void RunOnOwnThreads(int threads, const Fn& fn) {
  std::vector<std::thread> others;
  try {
    others.reserve(threads - 1);
    for (int i = 1; i < threads; ++i) {
      others.emplace_back([&fn] {
        if (CanThrow()) fn();
      });
    }
  } catch (const std::bad_alloc&) {
  } catch (const std::system_error&) {
  }
  fn();
  for (std::thread& other : others) other.join();
}

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_IN_TURN_H_
