#include <string>
#include <vector>

#include "cc/kernels/adapters.h"
#include "cc/kernels/embedding_table.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace sparse_emb {

using tensorflow::DEVICE_CPU;
using tensorflow::OpInputList;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::core::RefCountPtr;

class EmbeddingLookupOp : public Kernel {
 public:
  explicit EmbeddingLookupOp(OpKernelConstruction* ctx) : Kernel(ctx) {
    OP_REQUIRES_OK(ctx, ctx->GetAttr("num_tables", &num_tables_));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("insert", &insert_));
    std::string missing;
    OP_REQUIRES_OK(ctx, ctx->GetAttr("missing", &missing));
    missing_ = missing == "zeros" ? Missing::kZeros : Missing::kInitial;
  }

  void Run(OpKernelContext* ctx) override {
    OpInputList anchors;
    OP_REQUIRES_OK(ctx, ctx->input_list("anchors", &anchors));
    const Tensor& keys = ctx->input(num_tables_);
    OP_REQUIRES_OK(ctx, CheckRank("keys", keys, 1));
    const int64_t n = keys.NumElements();
    const int64_t* all_keys = keys.vec<int64_t>().data();
    TableSplits splits;
    OP_REQUIRES_OK(ctx, splits.Get(ctx, num_tables_, n));
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
    }
    Tensor* rows;
    OP_REQUIRES_OK(ctx, AllocateOutput(ctx, 0, {n, dim}, &rows));
    IntraOpPool pool(ctx);
    for (int t = 0; num_tables_ > 1 && t < num_tables_; ++t) {
      const int64_t* table_keys = all_keys + splits.begin(t);
      OP_REQUIRES_OK(ctx, ToAbsl((*tables[t])->CheckKeys(table_keys, splits.size(t))));
      if (!insert_) continue;
      OP_REQUIRES_OK(ctx, ToAbsl((*tables[t])->CheckRoom(table_keys, splits.size(t), &pool)));
    }
    float* const out = rows->matrix<float>().data();
    OP_REQUIRES_OK(ctx,
                   splits.ForEachTable(30 + dim, &pool, [&](int64_t t, WorkerPool* table_pool) {
                     const int64_t begin = splits.begin(t);
                     return (*tables[t])
                         ->Lookup(all_keys + begin, splits.size(t), insert_, missing_,
                                  out + begin * dim, table_pool);
                   }));
  }

 private:
  int num_tables_;
  bool insert_;
  Missing missing_;
};

REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingLookup").Device(DEVICE_CPU), EmbeddingLookupOp);

}  // namespace sparse_emb
