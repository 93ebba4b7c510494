// Lookups of a ShardedTable; sharded_table.h includes this.
#ifndef TF_SPARSE_EMB_CC_LIB_SHARDED_TABLE_LOOKUP_H_
#define TF_SPARSE_EMB_CC_LIB_SHARDED_TABLE_LOOKUP_H_

#include <algorithm>
#include <mutex>
#include <shared_mutex>
#include <utility>
#include <vector>

#include "cc/lib/key_dedup.h"
#include "cc/lib/sharded_table.h"
#include "cc/lib/vector_ops.h"

namespace sparse_emb {

template <class Store>
Status ShardedTable<Store>::Lookup(const int64_t* keys, int64_t n, bool insert, Missing missing,
                                   LookupStart start, float* out, WorkerPool* pool) {
  SPARSE_EMB_RETURN_IF_ERROR(CheckKeys(keys, n));
  if (!insert) {
    {
      const std::shared_lock lock = LockShared();
      const int64_t begin = start.moment == moment_ ? start.size : 0;
      rows_.Read(keys + begin, n - begin, missing, out + begin * options().dim, nullptr, pool);
    }
    if (options().max_norm.enabled()) {
      pool->ParallelFor(n, options().dim, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) BoundNorm(out + i * options().dim);
      });
    }
    return {};
  }
  const bool bounded = options().max_norm.enabled();
  LongRows scratch(bounded ? n : 0);  // before anything changes
  int64_t changes;
  SPARSE_EMB_RETURN_IF_ERROR(ReadOrInsert(keys, n, std::move(start), out, &changes, pool));
  return bounded ? BoundNormsInPlace(keys, n, changes, out, &scratch, pool) : Status();
}

template <class Store>
Moment ShardedTable<Store>::Now() {
  const std::shared_lock lock = LockShared();
  return moment_;
}

template <class Store>
bool ShardedTable<Store>::ReadAt(const Moment& moment, const int64_t* keys, int64_t n,
                                 Missing missing, float* out, float** rows, int64_t* absent) {
  if (!CheckKeys(keys, n).ok()) return false;
  SerialPool serial;
  const std::shared_lock lock = lock_.TryShared();
  if (!lock.owns_lock() || moment != moment_) return false;
  *absent += rows_.Read(keys, n, missing, out, rows, &serial);
  return true;
}

// The keys of a batch that are not in the table, but for the padding key.
template <class Store>
struct ShardedTable<Store>::AbsentKeys {
  std::vector<int64_t> positions;  // in the batch
  UniqueKeys unique;               // of the keys at these positions
};

// `count` are absent: those of which found[i] is null. The padding key's out[i] become zeros.
template <class Store>
typename ShardedTable<Store>::AbsentKeys ShardedTable<Store>::FindAbsent(const int64_t* keys,
                                                                         int64_t n, int64_t count,
                                                                         float* const* found,
                                                                         float* out,
                                                                         WorkerPool* pool) const {
  const int64_t dim = options().dim;
  std::vector<int64_t> positions, absent;
  positions.reserve(count);
  absent.reserve(count);
  for (int64_t i = 0; count > 0 && i < n; ++i) {
    if (found[i] != nullptr) continue;
    if (IsPadding(keys[i])) {
      std::fill(out + i * dim, out + (i + 1) * dim, 0.0f);
      continue;
    }
    positions.push_back(i);
    absent.push_back(keys[i]);
  }
  return {std::move(positions),
          UniqueKeys(absent.data(), static_cast<int64_t>(absent.size()), pool)};
}

// Inserts these keys, or takes the rows that they have by now: found[i] and out[i]. Needs the table
// alone.
template <class Store>
Status ShardedTable<Store>::InsertAbsent(const AbsentKeys& absent, float** found, float* out,
                                         WorkerPool* pool) {
  const int64_t dim = options().dim;
  const std::vector<int64_t>& positions = absent.positions;
  const UniqueKeys& unique = absent.unique;
  std::vector<float*> rows(unique.size);
  SPARSE_EMB_RETURN_IF_ERROR(
      FindOrInsert(unique.keys.data(), unique.size, false, rows.data(), pool));
  logs_.Add(unique.keys.data(), unique.size);
  pool->ParallelFor(positions.size(), rows_.SearchCost(), [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; ++j) {
      float* const row = rows[unique.inverse[j]];
      found[positions[j]] = row;
      Copy(row, out + positions[j] * dim, dim);
    }
  });
  return {};
}

// found[i] = the row of keys[i], inserted where it is missing (but for the padding key's), out[i] =
// its embedding. Needs the table alone.
template <class Store>
Status ShardedTable<Store>::ReadOrInsertAlone(const int64_t* keys, int64_t n, float** found,
                                              float* out, WorkerPool* pool) {
  const int64_t count = rows_.Read(keys, n, Missing::kZeros, out, found, pool);
  return InsertAbsent(FindAbsent(keys, n, count, found, out, pool), found, out, pool);
}

// out[i] = the row of keys[i], inserted where it is missing (but for the padding key's). They are
// of the moment that *changes tells.
template <class Store>
Status ShardedTable<Store>::ReadOrInsert(const int64_t* keys, int64_t n, LookupStart start,
                                         float* out, int64_t* changes, WorkerPool* pool) {
  const int64_t dim = options().dim;
  std::vector<float*> found = std::move(start.rows);
  found.resize(n);
  int64_t count, layout;
  {
    const std::shared_lock lock = LockShared();
    if (start.moment != moment_) start.size = start.absent = 0;
    const int64_t begin = start.size;
    count = start.absent + rows_.Read(keys + begin, n - begin, Missing::kZeros, out + begin * dim,
                                      found.data() + begin, pool);
    *changes = moment_.changes;
    layout = moment_.layout;
  }
  const AbsentKeys absent = FindAbsent(keys, n, count, found.data(), out, pool);
  if (absent.positions.empty()) {
    last_lookup_.Keep(keys, std::move(found), layout);
    return {};
  }
  const std::unique_lock lock = LockAlone();
  if (moment_.changes == *changes) {
    SPARSE_EMB_RETURN_IF_ERROR(InsertAbsent(absent, found.data(), out, pool));
  } else {
    // What was read before is no longer of one moment with the rest, and may be gone.
    *changes = moment_.changes;
    layout = moment_.layout;
    SPARSE_EMB_RETURN_IF_ERROR(ReadOrInsertAlone(keys, n, found.data(), out, pool));
  }
  if (moment_.layout == layout) last_lookup_.Keep(keys, std::move(found), layout);
  return {};
}

template <class Store>
void ShardedTable<Store>::BoundNorm(float* row) const {
  const float scale = options().max_norm.ScaleOf(row, options().dim);
  if (scale != 1.0f) Scale(scale, row, options().dim);
}

// Those rows of a batch whose norm is beyond the bound, with room for all.
template <class Store>
struct ShardedTable<Store>::LongRows {
  explicit LongRows(int64_t n) : is_long(n) {
    positions.reserve(n);
    keys.reserve(n);
    rows.reserve(n);
  }
  std::vector<uint8_t> is_long;  // [n]
  std::vector<int64_t> positions, keys;
  std::vector<float*> rows;
};

// Sets is_long, positions and keys; `out` [n, D] are the rows of keys.
template <class Store>
void ShardedTable<Store>::FindLongRows(const int64_t* keys, int64_t n, const float* out,
                                       LongRows* found, WorkerPool* pool) const {
  const int64_t dim = options().dim;
  pool->ParallelFor(n, dim, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      found->is_long[i] = options().max_norm.ScaleOf(out + i * dim, dim) != 1.0f;
    }
  });
  found->positions.clear();
  found->keys.clear();
  for (int64_t i = 0; i < n; ++i) {
    if (!found->is_long[i]) continue;
    found->positions.push_back(i);
    found->keys.push_back(keys[i]);
  }
}

// Scales the rows of those keys whose norm in `out` [n, D] is beyond the bound, in the table and
// in out, which was read at the moment that `changes` tells.
template <class Store>
Status ShardedTable<Store>::BoundNormsInPlace(const int64_t* keys, int64_t n, int64_t changes,
                                              float* out, LongRows* found, WorkerPool* pool) {
  FindLongRows(keys, n, out, found, pool);
  if (found->keys.empty()) return {};
  const std::unique_lock lock = LockAlone();
  if (moment_.changes != changes) {
    found->rows.resize(n);
    SPARSE_EMB_RETURN_IF_ERROR(ReadOrInsertAlone(keys, n, found->rows.data(), out, pool));
    FindLongRows(keys, n, out, found, pool);
  }
  ++moment_.changes;
  found->rows.resize(found->keys.size());
  rows_.Find(found->keys.data(), found->keys.size(), found->rows.data(), pool);
  logs_.Add(found->keys.data(), found->keys.size());
  for (size_t j = 0; j < found->rows.size(); ++j) {
    float* const at = out + found->positions[j] * options().dim;
    float* const row = found->rows[j];
    BoundNorm(at);
    // A key that comes again finds what its first coming wrote.
    if (row != nullptr) Copy(at, row, options().dim);
  }
  return {};
}

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_SHARDED_TABLE_LOOKUP_H_
