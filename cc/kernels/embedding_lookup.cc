#include <string>
#include <vector>

#include "cc/kernels/adapters.h"
#include "cc/kernels/bag_inputs.h"
#include "cc/kernels/embedding_table.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace sparse_emb {

using tensorflow::DEVICE_CPU;
using tensorflow::OpInputList;
using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;
using tensorflow::core::RefCountPtr;

class EmbeddingLookupOp : public OpKernel {
 public:
  explicit EmbeddingLookupOp(OpKernelConstruction* ctx) : OpKernel(ctx) {
    OP_REQUIRES_OK(ctx, ctx->GetAttr("num_tables", &num_tables_));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("insert", &insert_));
    std::string missing;
    OP_REQUIRES_OK(ctx, ctx->GetAttr("missing", &missing));
    missing_ = missing == "zeros" ? Missing::kZeros : Missing::kInitial;
  }

  void Compute(OpKernelContext* ctx) override {
    OpInputList table_splits, anchors;
    OP_REQUIRES_OK(ctx, ctx->input_list("table_splits", &table_splits));
    OP_REQUIRES_OK(ctx, ctx->input_list("anchors", &anchors));
    const Tensor& keys = ctx->input(num_tables_);
    OP_REQUIRES_OK(ctx, CheckRank("keys", keys, 1));
    const int64_t n = keys.NumElements();
    const int64_t one_table[] = {0, n};
    const int64_t* splits = one_table;
    if (num_tables_ > 1) {
      OP_REQUIRES_OK(ctx, CheckSplits("table_splits", table_splits[0], n));
      OP_REQUIRES_OK(ctx, CheckDim("table_splits", table_splits[0], 0, num_tables_ + 1));
      splits = table_splits[0].vec<int64_t>().data();
    }
    const int64_t* all_keys = keys.vec<int64_t>().data();
    std::vector<RefCountPtr<EmbeddingTable>> tables(num_tables_);
    int64_t dim = 0;
    for (int t = 0; t < num_tables_; ++t) {
      OP_REQUIRES_OK(ctx, GetTable(ctx, &tables[t], t));
      if (t == 0) dim = (*tables[t])->options().dim;
      OP_REQUIRES_OK(ctx, CheckRank("anchor", anchors[t], 2));
      OP_REQUIRES_OK(ctx, CheckDim("anchor", anchors[t], 1, dim));
      OP_REQUIRES(ctx, (*tables[t])->options().dim == dim,
                  absl::InvalidArgumentError(absl::StrCat("tables must have one width, got ", dim,
                                                          " and ", (*tables[t])->options().dim)));
      OP_REQUIRES_OK(
          ctx, ToAbsl((*tables[t])->CheckKeys(all_keys + splits[t], splits[t + 1] - splits[t])));
    }
    Tensor* rows;
    OP_REQUIRES_OK(ctx, ctx->allocate_output(0, TensorShape({n, dim}), &rows));
    IntraOpPool pool(ctx);
    for (int t = 0; insert_ && num_tables_ > 1 && t < num_tables_; ++t) {
      OP_REQUIRES_OK(
          ctx,
          ToAbsl((*tables[t])->CheckRoom(all_keys + splits[t], splits[t + 1] - splits[t], &pool)));
    }
    for (int t = 0; t < num_tables_; ++t) {
      OP_REQUIRES_OK(
          ctx,
          ToAbsl((*tables[t])
                     ->Lookup(all_keys + splits[t], splits[t + 1] - splits[t], insert_, missing_,
                              rows->matrix<float>().data() + splits[t] * dim, &pool)));
    }
  }

 private:
  int num_tables_;
  bool insert_;
  Missing missing_;
};

REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingLookup").Device(DEVICE_CPU), EmbeddingLookupOp);

}  // namespace sparse_emb
