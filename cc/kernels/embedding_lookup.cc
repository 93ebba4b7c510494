#include "cc/kernels/adapters.h"
#include "cc/kernels/input_splits.h"
#include "cc/kernels/lookup_tables.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace sparse_emb {

using tensorflow::DEVICE_CPU;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;

class EmbeddingLookupOp : public Kernel {
 public:
  explicit EmbeddingLookupOp(OpKernelConstruction* ctx) : Kernel(ctx) {
    OP_REQUIRES_OK(ctx, ctx->GetAttr("num_tables", &num_tables_));
    OP_REQUIRES_OK(ctx, attrs_.Get(ctx));
  }

  void Run(OpKernelContext* ctx) override {
    const Tensor& keys = ctx->input(num_tables_);
    OP_REQUIRES_OK(ctx, CheckRank("keys", keys, 1));
    TableSplits splits;
    OP_REQUIRES_OK(ctx, splits.Get(ctx, num_tables_, keys.NumElements()));
    LookupTables tables;
    OP_REQUIRES_OK(ctx, tables.Get(ctx, num_tables_));
    Tensor* rows;
    OP_REQUIRES_OK(ctx, AllocateOutput(ctx, 0, {keys.NumElements(), tables.dim()}, &rows));
    IntraOpPool pool(ctx);
    OP_REQUIRES_OK(ctx, tables.Lookup(keys.vec<int64_t>().data(), splits, attrs_,
                                      rows->matrix<float>().data(), &pool));
  }

 private:
  int num_tables_;
  LookupAttrs attrs_;
};

REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingLookup").Device(DEVICE_CPU), EmbeddingLookupOp);

}  // namespace sparse_emb
