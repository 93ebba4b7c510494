// The threads that a batch operation may use. The kernels pass TensorFlow's intra-op pool; tests
// pass their own.
#ifndef TF_SPARSE_EMB_CC_LIB_WORKER_POOL_H_
#define TF_SPARSE_EMB_CC_LIB_WORKER_POOL_H_

#include <cstdint>

namespace sparse_emb {

// What a loop does with a range: refers to a callable, which must outlive it.
class RangeFn {
 public:
  template <class Fn>
  RangeFn(const Fn& fn)  // NOLINT: a lambda is passed where this is asked for
      : fn_(&fn), call_([](const void* fn, int64_t begin, int64_t end) {
          (*static_cast<const Fn*>(fn))(begin, end);
        }) {}
  void operator()(int64_t begin, int64_t end) const { call_(fn_, begin, end); }

 private:
  const void* fn_;
  void (*call_)(const void* fn, int64_t begin, int64_t end);
};

class WorkerPool {
 public:
  virtual ~WorkerPool() = default;

  // How many threads can work at once, the caller included.
  virtual int num_threads() const = 0;

  // Calls fn(begin, end) on disjoint ranges which cover [0, total), possibly at once, and returns
  // when all are done. `cost` is the rough time of one unit in nanoseconds: a pool uses it to
  // choose how many ranges to make. Where fn throws std::bad_alloc, this throws it when all are
  // done; fn throws nothing else.
  virtual void ParallelFor(int64_t total, int64_t cost, const RangeFn& fn) = 0;
};

// Runs everything on the calling thread.
class SerialPool final : public WorkerPool {
 public:
  int num_threads() const override { return 1; }
  void ParallelFor(int64_t total, int64_t, const RangeFn& fn) override {
    if (total > 0) fn(0, total);
  }
};

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_WORKER_POOL_H_
