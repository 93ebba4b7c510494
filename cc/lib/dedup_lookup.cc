#include "cc/lib/dedup_lookup.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <utility>

#include "cc/lib/key_dedup.h"
#include "cc/lib/vector_ops.h"

namespace sparse_emb {
namespace {

// Reads rows of unique keys while a thread finds more of them.
class Reader {
 public:
  // At most as many as `ahead` has room for.
  Reader(const int64_t* unique, Table* table, bool insert, Missing missing, const RowsAhead& ahead)
      : unique_(unique), table_(table), missing_(missing), out_(ahead), dim_(table->options().dim) {
    done_.moment = table->Now();
    if (insert) done_.rows.resize(ahead.size);
  }

  // For DedupKeysInSight to tell how many there are; Complete once there will be no more.
  std::atomic<int64_t>* found() { return &found_; }
  void Complete() { complete_.store(true, std::memory_order_release); }

  // Reads until all are read: for several threads at once.
  void Read() {
    int64_t absent = 0, waits = 0;
    while (!failed_.load(std::memory_order_relaxed)) {
      const bool complete = complete_.load(std::memory_order_acquire);  // before `found`
      const int64_t found = std::min(found_.load(std::memory_order_acquire), out_.size);
      int64_t begin = next_.load(std::memory_order_relaxed);
      if (begin >= found && (complete || found == out_.size)) break;
      if (found - begin < kRange && !complete && found < out_.size) {
        Wait(++waits);
        continue;
      }
      const int64_t end = std::min(begin + kRange, found);
      if (!next_.compare_exchange_strong(begin, end, std::memory_order_relaxed)) continue;
      float** const rows = done_.rows.empty() ? nullptr : done_.rows.data() + begin;
      if (!table_->ReadAt(done_.moment, unique_ + begin, end - begin, missing_,
                          out_.rows + begin * dim_, rows, &absent)) {
        failed_.store(true, std::memory_order_relaxed);
      }
    }
    absent_ += absent;
  }

  // What was read, when all threads have.
  LookupStart Take() {
    if (failed_) return {};
    done_.size = next_;
    done_.absent = absent_;
    return std::move(done_);
  }

 private:
  static constexpr int64_t kRange = 1024;  // 16 us of the dedup

  static void Wait(int64_t waits) {
    constexpr int64_t kYieldFrom = 4096;
    if (waits > kYieldFrom) return std::this_thread::yield();
#if defined(__SSE2__)
    for (int i = 0; i < 16; ++i) __builtin_ia32_pause();
#endif
  }

  const int64_t* const unique_;
  Table* const table_;
  const Missing missing_;
  const RowsAhead out_;
  const int64_t dim_;
  LookupStart done_;
  std::atomic<int64_t> found_{0}, next_{0}, absent_{0};
  std::atomic<bool> complete_{false}, failed_{false};
};

}  // namespace

Status DedupLookup(const int64_t* keys, int64_t n, const UniqueOut& unique, Table* table,
                   bool insert, Missing missing, const RowsAhead& ahead,
                   const std::function<float*(int64_t num_unique)>& rows, WorkerPool* pool) {
  constexpr int64_t kDedupCost = 5;  // nanoseconds a key
  constexpr int kMostThreads = 4;    // three read as fast as one finds
  int64_t num_unique = 0;
  LookupStart read;
  if (DedupsInParallel(n, *pool)) {
    num_unique = DedupKeys(keys, n, unique.keys, unique.inverse, unique.counts, pool);
  } else {
    Reader reader(unique.keys, table, insert, missing, ahead);
    // Whoever comes first finds the unique keys.
    std::atomic<bool> begun{false};
    const int threads = std::min(pool->num_threads(), kMostThreads);
    pool->ParallelFor(threads, n * kDedupCost, [&](int64_t, int64_t) {
      if (!begun.exchange(true)) {
        struct AtEnd {  // without memory for the dedup too
          Reader* reader;
          ~AtEnd() { reader->Complete(); }
        } const at_end{&reader};
        num_unique =
            DedupKeysInSight(keys, n, unique.keys, unique.inverse, unique.counts, reader.found());
      }
      reader.Read();
    });
    read = reader.Take();
  }
  float* const out = rows(num_unique);
  if (out == nullptr) return {};
  if (out != ahead.rows) Copy(ahead.rows, out, read.size * table->options().dim);
  const Status status =
      table->Lookup(unique.keys, num_unique, insert, missing, std::move(read), out, pool);
  if (status.ok()) return status;
  SPARSE_EMB_RETURN_IF_ERROR(table->CheckKeys(keys, n));  // names the place among all keys
  return status;
}

}  // namespace sparse_emb
