// Whether the rows of a table are as they must be: Table::Check.
#ifndef TF_SPARSE_EMB_CC_LIB_SHARDED_ROWS_CHECK_H_
#define TF_SPARSE_EMB_CC_LIB_SHARDED_ROWS_CHECK_H_

#include <cmath>
#include <cstdint>
#include <vector>

#include "cc/lib/partition.h"
#include "cc/lib/sharded_rows.h"
#include "cc/lib/table.h"

namespace sparse_emb {

// Walks the rows of all shards, each as its store has them, and finds every key again. Beside the
// rows it needs some bytes for each key of the shards that are walked at once.
template <class Store>
class RowChecker {
 public:
  // Rows have `state_width` floats of state (-1: any, a Bind failed), and counts up to the step
  // `updates`.
  RowChecker(const TableOptions& options, const ShardedRows<Store>& rows, const Share& share,
             bool finite, int64_t state_width, int64_t updates)
      : options_(options),
        rows_(rows),
        share_(share),
        finite_(finite),
        state_width_(state_width),
        updates_(updates) {}

  Status Check(WorkerPool* pool) const {
    std::vector<Status> statuses(kShards);
    const int64_t cost = rows_.size() / kShards * (200 + rows_.state_at() + state_width_);
    pool->ParallelFor(kShards, cost, [&](int64_t begin, int64_t end) {
      for (int64_t shard = begin; shard < end; ++shard) statuses[shard] = CheckShard(shard);
    });
    for (const Status& status : statuses) SPARSE_EMB_RETURN_IF_ERROR(status);
    return {};
  }

 private:
  Status CheckShard(int shard) const {
    constexpr int64_t kPart = 4096;
    const Store& store = rows_.store(shard);
    if (state_width_ >= 0 && store.row_floats() != rows_.state_at() + state_width_) {
      return Error(Code::kDataLoss, "rows have room for ", store.row_floats(), " floats and need ",
                   rows_.state_at() + state_width_);
    }
    SPARSE_EMB_RETURN_IF_ERROR(store.Check());
    int64_t walked = 0;
    Status status;
    for (int64_t position = 0; position >= 0 && status.ok();) {
      position = store.ForEachFrom(position, kPart, [&](int64_t key, const float* row) {
        ++walked;
        if (status.ok()) status = CheckRow(shard, key, row);
      });
    }
    if (!status.ok() || walked == store.size()) return status;
    return Error(Code::kDataLoss, "a walk meets ", walked, " keys, but the size is ", store.size());
  }

  Status CheckRow(int shard, int64_t key, const float* row) const {
    const int64_t input_dim = options_.input_dim;
    if (input_dim >= 0 && (key < 0 || key >= input_dim)) {
      return Error(Code::kDataLoss, "key ", key, " is outside [0, ", input_dim, ")");
    }
    if (rows_.ShardOf(key) != shard) {
      return Error(Code::kDataLoss, "key ", key, " is in shard ", shard, ", not in its own, ",
                   rows_.ShardOf(key));
    }
    if (!share_.Has(key)) {
      return Error(Code::kDataLoss, "key ", key, " is on server ", share_.server,
                   ", not on its own, ", ServerOfKey(key, share_.num_servers));
    }
    if (const float* found = rows_.store(shard).Find(key, HashKey(key)); found != row) {
      return Error(Code::kDataLoss, "key ", key,
                   found == nullptr ? " is not found" : " has two rows");
    }
    SPARSE_EMB_RETURN_IF_ERROR(CheckCounts(key, row));
    if (!finite_) return {};
    SPARSE_EMB_RETURN_IF_ERROR(CheckFinite("embedding", key, row, options_.dim));
    return CheckFinite("state", key, row + rows_.state_at(), state_width_);
  }

  Status CheckCounts(int64_t key, const float* row) const {
    const KeyCounts& counts = options_.key_counts;
    if (counts.width == 0) return {};
    if (const int64_t last = counts.LastStep(row + rows_.counts_at()); last > updates_) {
      return Error(Code::kDataLoss, "key ", key, " was counted in step ", last, " of ", updates_);
    }
    std::vector<double> values(counts.width);
    counts.Get(row + rows_.counts_at(), updates_, values.data());
    for (int64_t k = 0; k < counts.width; ++k) {
      if (!finite_ || std::isfinite(values[k])) continue;
      return Error(Code::kDataLoss, "count ", k, " of key ", key, " is ", values[k]);
    }
    return {};
  }

  static Status CheckFinite(const char* what, int64_t key, const float* values, int64_t n) {
    for (int64_t d = 0; d < n; ++d) {
      if (std::isfinite(values[d])) continue;
      return Error(Code::kDataLoss, what, "[", d, "] of key ", key, " is ", values[d]);
    }
    return {};
  }

  const TableOptions& options_;
  const ShardedRows<Store>& rows_;
  const Share share_;
  const bool finite_;
  const int64_t state_width_, updates_;
};

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_SHARDED_ROWS_CHECK_H_
