#include "cc/kernels/adapters.h"
#include "cc/kernels/embedding_table.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace sparse_emb {

using tensorflow::DEVICE_CPU;
using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;
using tensorflow::core::RefCountPtr;

class EmbeddingLookupOp : public OpKernel {
 public:
  explicit EmbeddingLookupOp(OpKernelConstruction* ctx) : OpKernel(ctx) {
    OP_REQUIRES_OK(ctx, ctx->GetAttr("insert", &insert_));
    std::string missing;
    OP_REQUIRES_OK(ctx, ctx->GetAttr("missing", &missing));
    missing_ = missing == "zeros" ? Missing::kZeros : Missing::kInitial;
  }

  void Compute(OpKernelContext* ctx) override {
    RefCountPtr<EmbeddingTable> table;
    OP_REQUIRES_OK(ctx, GetTable(ctx, &table));
    const Tensor& keys = ctx->input(1);
    const Tensor& anchor = ctx->input(2);
    const int64_t dim = (*table)->options().dim;
    OP_REQUIRES_OK(ctx, CheckRank("keys", keys, 1));
    OP_REQUIRES_OK(ctx, CheckRank("anchor", anchor, 2));
    OP_REQUIRES_OK(ctx, CheckDim("anchor", anchor, 1, dim));
    Tensor* rows;
    OP_REQUIRES_OK(ctx, ctx->allocate_output(0, TensorShape({keys.NumElements(), dim}), &rows));
    IntraOpPool pool(ctx);
    OP_REQUIRES_OK(ctx,
                   ToAbsl((*table)->Lookup(keys.vec<int64_t>().data(), keys.NumElements(), insert_,
                                           missing_, rows->matrix<float>().data(), &pool)));
  }

 private:
  bool insert_;
  Missing missing_;
};

REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingLookup").Device(DEVICE_CPU), EmbeddingLookupOp);

}  // namespace sparse_emb
