// Where the keys of an op's features, or of its tables, stand among all its keys.
#ifndef TF_SPARSE_EMB_CC_KERNELS_INPUT_SPLITS_H_
#define TF_SPARSE_EMB_CC_KERNELS_INPUT_SPLITS_H_

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

#include "cc/kernels/adapters.h"
#include "cc/ops/feature_attrs.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace sparse_emb {

// [P + 1] for P parts, from 0 to the number of keys: part p has the keys [splits[p], splits[p +
// 1]).
class InputSplits {
 public:
  InputSplits() = default;
  explicit InputSplits(const int64_t* splits) : splits_(splits) {}
  InputSplits(const InputSplits&) = delete;  // splits_ may point into it

  // From the input list of this name: of one tensor, or of none, which is for one part.
  absl::Status Get(tensorflow::OpKernelContext* ctx, const char* name, int64_t parts,
                   int64_t num_keys) {
    tensorflow::OpInputList list;
    TF_RETURN_IF_ERROR(ctx->input_list(name, &list));
    one_part_[1] = num_keys;
    if (list.size() == 0) return absl::OkStatus();
    TF_RETURN_IF_ERROR(CheckSplits(name, list[0], num_keys));
    TF_RETURN_IF_ERROR(CheckDim(name, list[0], 0, parts + 1));
    splits_ = list[0].vec<int64_t>().data();
    return absl::OkStatus();
  }

  const int64_t* data() const { return splits_; }
  int64_t begin(int64_t part) const { return splits_[part]; }
  int64_t size(int64_t part) const { return splits_[part + 1] - splits_[part]; }

 private:
  int64_t one_part_[2] = {0, 0};
  const int64_t* splits_ = one_part_;
};

// Where the keys of each of an op's tables stand: its input list table_splits.
class TableSplits : public InputSplits {
 public:
  TableSplits() = default;
  TableSplits(const int64_t* splits, int64_t num_tables)
      : InputSplits(splits), num_tables_(num_tables) {}

  absl::Status Get(tensorflow::OpKernelContext* ctx, int64_t num_tables, int64_t num_keys) {
    tensorflow::OpInputList list;
    TF_RETURN_IF_ERROR(ctx->input_list("table_splits", &list));
    TF_RETURN_IF_ERROR(CheckNumTableSplits(num_tables, list.size()));
    num_tables_ = num_tables;
    return InputSplits::Get(ctx, "table_splits", num_tables, num_keys);
  }

  // Calls fn(table, pool for its keys) for all tables and returns the first table's error. Many
  // tables of which none has most of the keys have a thread each, otherwise the threads share the
  // keys of one table after the other.
  absl::Status ForEachTable(int64_t cost_per_key, WorkerPool* pool,
                            const std::function<Status(int64_t, WorkerPool*)>& fn) const {
    int64_t largest = 0;
    for (int64_t t = 0; t < num_tables_; ++t) largest = std::max(largest, size(t));
    const int64_t keys = begin(num_tables_);
    if (num_tables_ < 2 * pool->num_threads() || largest * pool->num_threads() > keys) {
      for (int64_t t = 0; t < num_tables_; ++t) TF_RETURN_IF_ERROR(ToAbsl(fn(t, pool)));
      return absl::OkStatus();
    }
    std::vector<Status> statuses(num_tables_);
    pool->ParallelFor(num_tables_, keys / num_tables_ * cost_per_key,
                      [&](int64_t begin, int64_t end) {
                        SerialPool serial;
                        for (int64_t t = begin; t < end; ++t) statuses[t] = fn(t, &serial);
                      });
    for (const Status& status : statuses) TF_RETURN_IF_ERROR(ToAbsl(status));
    return absl::OkStatus();
  }

 private:
  int64_t num_tables_ = 1;
};

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_KERNELS_INPUT_SPLITS_H_
