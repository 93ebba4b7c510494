// The tables of a lookup, of one width.
#ifndef TF_SPARSE_EMB_CC_KERNELS_LOOKUP_TABLES_H_
#define TF_SPARSE_EMB_CC_KERNELS_LOOKUP_TABLES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cc/kernels/adapters.h"
#include "cc/kernels/embedding_table.h"
#include "cc/kernels/input_splits.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace sparse_emb {

// The attributes insert and missing.
struct LookupAttrs {
  bool insert = false;
  Missing missing = Missing::kInitial;

  absl::Status Get(tensorflow::OpKernelConstruction* ctx) {
    TF_RETURN_IF_ERROR(ctx->GetAttr("insert", &insert));
    std::string word;
    TF_RETURN_IF_ERROR(ctx->GetAttr("missing", &word));
    missing = word == "zeros" ? Missing::kZeros : Missing::kInitial;
    return absl::OkStatus();
  }
};

class LookupTables {
 public:
  // From the first inputs of the op, and its list anchors.
  absl::Status Get(tensorflow::OpKernelContext* ctx, int64_t num_tables) {
    tensorflow::OpInputList anchors;
    TF_RETURN_IF_ERROR(ctx->input_list("anchors", &anchors));
    tables_.resize(num_tables);
    for (int64_t t = 0; t < num_tables; ++t) {
      TF_RETURN_IF_ERROR(GetTable(ctx, &tables_[t], static_cast<int>(t)));
      const int64_t dim = table(t)->options().dim;
      if (t == 0) dim_ = dim;
      TF_RETURN_IF_ERROR(CheckRank("anchor", anchors[t], 2));
      TF_RETURN_IF_ERROR(CheckDim("anchor", anchors[t], 1, dim_));
      if (dim != dim_) {
        return absl::InvalidArgumentError(
            absl::StrCat("tables must have one width, got ", dim_, " and ", dim));
      }
    }
    return absl::OkStatus();
  }

  Table* table(int64_t t) const { return tables_[t]->get(); }
  int64_t dim() const { return dim_; }

  // Table::Lookup for all, out [N, D]; the keys, and the room for new ones, are checked for all
  // before anything changes.
  absl::Status Lookup(const int64_t* keys, const TableSplits& splits, const LookupAttrs& attrs,
                      float* out, WorkerPool* pool) const {
    const int64_t num_tables = tables_.size();
    for (int64_t t = 0; num_tables > 1 && t < num_tables; ++t) {
      const int64_t* table_keys = keys + splits.begin(t);
      TF_RETURN_IF_ERROR(ToAbsl(table(t)->CheckKeys(table_keys, splits.size(t))));
      if (!attrs.insert) continue;
      TF_RETURN_IF_ERROR(ToAbsl(table(t)->CheckRoom(table_keys, splits.size(t), pool)));
    }
    return splits.ForEachTable(30 + dim_, pool, [&](int64_t t, WorkerPool* table_pool) {
      const int64_t begin = splits.begin(t);
      return table(t)->Lookup(keys + begin, splits.size(t), attrs.insert, attrs.missing,
                              out + begin * dim_, table_pool);
    });
  }

 private:
  std::vector<tensorflow::core::RefCountPtr<EmbeddingTable>> tables_;
  int64_t dim_ = 0;
};

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_KERNELS_LOOKUP_TABLES_H_
