// The table as a TensorFlow resource.
#ifndef TF_SPARSE_EMB_CC_KERNELS_EMBEDDING_TABLE_H_
#define TF_SPARSE_EMB_CC_KERNELS_EMBEDDING_TABLE_H_

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cc/kernels/adapters.h"
#include "cc/lib/table.h"
#include "cc/ops/feature_attrs.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/resource_base.h"
#include "tensorflow/core/framework/resource_mgr.h"

namespace sparse_emb {

class EmbeddingTable final : public tensorflow::ResourceBase {
 public:
  explicit EmbeddingTable(std::unique_ptr<Table> table) : table_(std::move(table)) {}

  Table* get() const { return table_.get(); }
  Table* operator->() const { return table_.get(); }

  std::string DebugString() const override {
    return absl::StrCat("embedding table '", table_->options().name, "' with ", table_->Size(),
                        " rows");
  }
  int64_t MemoryUsed() const override { return table_->MemoryBytes(); }

 private:
  const std::unique_ptr<Table> table_;
};

// The table of an input.
inline absl::Status GetTable(tensorflow::OpKernelContext* ctx,
                             tensorflow::core::RefCountPtr<EmbeddingTable>* out, int input = 0) {
  return tensorflow::LookupResource(ctx, tensorflow::HandleFromInput(ctx, input), out);
}

// The attributes server and num_servers.
inline absl::Status GetShare(tensorflow::OpKernelConstruction* ctx, Share* out) {
  TF_RETURN_IF_ERROR(ctx->GetAttr("server", &out->server));
  TF_RETURN_IF_ERROR(ctx->GetAttr("num_servers", &out->num_servers));
  if (out->server < out->num_servers) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "server must be less than num_servers = ", out->num_servers, ", got ", out->server));
}

// Where the keys of each of an op's tables stand, [T + 1]: its input list table_splits, or for one
// table 0 and the number of keys.
class TableSplits {
 public:
  TableSplits() = default;
  TableSplits(const int64_t* splits, int64_t num_tables)
      : num_tables_(num_tables), splits_(splits) {}
  TableSplits(const TableSplits&) = delete;  // splits_ may point into it

  absl::Status Get(tensorflow::OpKernelContext* ctx, int64_t num_tables, int64_t num_keys) {
    tensorflow::OpInputList list;
    TF_RETURN_IF_ERROR(ctx->input_list("table_splits", &list));
    TF_RETURN_IF_ERROR(CheckNumTableSplits(num_tables, list.size()));
    num_tables_ = num_tables;
    one_table_[1] = num_keys;
    if (list.size() == 0) return absl::OkStatus();
    TF_RETURN_IF_ERROR(CheckSplits("table_splits", list[0], num_keys));
    splits_ = list[0].vec<int64_t>().data();
    return CheckDim("table_splits", list[0], 0, num_tables + 1);
  }

  const int64_t* data() const { return splits_; }
  int64_t begin(int64_t table) const { return splits_[table]; }
  int64_t size(int64_t table) const { return splits_[table + 1] - splits_[table]; }

  // Calls fn(table, pool for its keys) for all tables and returns the first table's error. Many
  // tables of which none has most of the keys have a thread each, otherwise the threads share the
  // keys of one table after the other.
  absl::Status ForEachTable(int64_t cost_per_key, WorkerPool* pool,
                            const std::function<Status(int64_t, WorkerPool*)>& fn) const {
    int64_t largest = 0;
    for (int64_t t = 0; t < num_tables_; ++t) largest = std::max(largest, size(t));
    const int64_t keys = splits_[num_tables_];
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
  int64_t one_table_[2] = {0, 0};
  const int64_t* splits_ = one_table_;
};

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_KERNELS_EMBEDDING_TABLE_H_
