// The table as a TensorFlow resource.
#ifndef TF_SPARSE_EMB_CC_KERNELS_EMBEDDING_TABLE_H_
#define TF_SPARSE_EMB_CC_KERNELS_EMBEDDING_TABLE_H_

#include <memory>
#include <string>
#include <utility>

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

// Where the keys of each of an op's tables stand, [T + 1]: its input list table_splits, or for one
// table 0 and the number of keys.
class TableSplits {
 public:
  absl::Status Get(tensorflow::OpKernelContext* ctx, int64_t num_tables, int64_t num_keys) {
    tensorflow::OpInputList list;
    TF_RETURN_IF_ERROR(ctx->input_list("table_splits", &list));
    TF_RETURN_IF_ERROR(CheckNumTableSplits(num_tables, list.size()));
    one_table_[1] = num_keys;
    if (list.size() == 0) return absl::OkStatus();
    TF_RETURN_IF_ERROR(CheckSplits("table_splits", list[0], num_keys));
    splits_ = list[0].vec<int64_t>().data();
    return CheckDim("table_splits", list[0], 0, num_tables + 1);
  }

  int64_t begin(int64_t table) const { return splits_[table]; }
  int64_t size(int64_t table) const { return splits_[table + 1] - splits_[table]; }

 private:
  int64_t one_table_[2] = {0, 0};
  const int64_t* splits_ = one_table_;
};

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_KERNELS_EMBEDDING_TABLE_H_
