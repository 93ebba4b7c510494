// The unique keys of a batch, in order of first occurrence.
#ifndef TF_SPARSE_EMB_CC_LIB_KEY_DEDUP_H_
#define TF_SPARSE_EMB_CC_LIB_KEY_DEDUP_H_

#include <atomic>
#include <cstdint>
#include <vector>

#include "cc/lib/worker_pool.h"

namespace sparse_emb {

//   U = 0
//   for i in 0 .. n - 1:
//     if keys[i] has not come before: unique[U] = keys[i]; counts[U] = 0; U += 1
//     inverse[i] = u where unique[u] == keys[i]
//     counts[u] += 1
//   return U
//
// unique and counts need room for n. n < 2^31.
int64_t DedupKeys(const int64_t* keys, int64_t n, int64_t* unique, int32_t* inverse,
                  int32_t* counts, WorkerPool* pool);

// Whether DedupKeys uses the threads of the pool for so many keys.
bool DedupsInParallel(int64_t n, const WorkerPool& pool);

// DedupKeys by the calling thread alone, for others to watch: unique[0 .. *found) stand as they
// will be, and *found, which begins at 0, ends as U.
int64_t DedupKeysInSight(const int64_t* keys, int64_t n, int64_t* unique, int32_t* inverse,
                         int32_t* counts, std::atomic<int64_t>* found);

// The unique keys of a batch and where each key of it is among them.
struct UniqueKeys {
  std::vector<int64_t> keys;     // the first `size` count
  std::vector<int32_t> inverse;  // [n]
  int64_t size;

  UniqueKeys(const int64_t* all, int64_t n, WorkerPool* pool) : keys(n), inverse(n) {
    std::vector<int32_t> counts(n);
    size = DedupKeys(all, n, keys.data(), inverse.data(), counts.data(), pool);
  }
};

// DedupKeys for the keys of F features on T tables: keys of feature f, which stand at
// [feature_splits[f], feature_splits[f + 1]), are those of table tables[f], in [0, T). The unique
// keys of table t stand at [table_splits[t], table_splits[t + 1]). Returns table_splits[T].
int64_t DedupKeysByTable(const int64_t* keys, const int64_t* feature_splits, const int64_t* tables,
                         int64_t num_features, int64_t num_tables, int64_t* unique,
                         int32_t* inverse, int32_t* counts, int64_t* table_splits,
                         WorkerPool* pool);

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_KEY_DEDUP_H_
