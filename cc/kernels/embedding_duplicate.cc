#include "cc/kernels/adapters.h"
#include "cc/kernels/bag_inputs.h"
#include "cc/lib/duplicate.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace sparse_emb {

using tensorflow::DEVICE_CPU;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;

class EmbeddingDuplicateOp : public Kernel {
 public:
  explicit EmbeddingDuplicateOp(OpKernelConstruction* ctx) : Kernel(ctx) {
    OP_REQUIRES_OK(ctx, GetCombiner(ctx, &pooled_, &combiner_));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("num_features", &num_features_));
  }

  void Run(OpKernelContext* ctx) override {
    const Tensor& rows = ctx->input(0);
    const Tensor& inverse = ctx->input(1);
    OP_REQUIRES_OK(ctx, CheckRank("rows", rows, 2));
    OP_REQUIRES_OK(ctx, CheckInverse(inverse, rows.dim_size(0)));
    const int64_t n = inverse.NumElements();
    const int64_t dim = rows.dim_size(1);
    Bags bags;
    if (pooled_) {
      OP_REQUIRES_OK(ctx, GetBags(ctx, n, combiner_, num_features_, &bags));
    } else {
      OP_REQUIRES_OK(ctx, CheckFeatures("keys", n, num_features_));
    }
    if (!pooled_ && num_features_ == 1 && IsIdentity(inverse, rows.dim_size(0))) {
      ctx->set_output(0, rows);
      return;
    }
    const int64_t num_rows = pooled_ ? bags.rows() : n / num_features_;
    Tensor* values;
    OP_REQUIRES_OK(ctx, AllocateOutput(ctx, 0, {num_rows, num_features_ * dim}, &values));
    const float* from = rows.matrix<float>().data();
    float* to = values->matrix<float>().data();
    IntraOpPool pool(ctx);
    if (pooled_) {
      PoolRows(from, inverse.vec<int32_t>().data(), bags, dim, to, &pool);
    } else {
      GatherRows(from, inverse.vec<int32_t>().data(), n, dim, num_features_, to, &pool);
    }
  }

 private:
  bool pooled_;
  Combiner combiner_;
  int64_t num_features_;
};

class EmbeddingRowProductsOp : public Kernel {
 public:
  explicit EmbeddingRowProductsOp(OpKernelConstruction* ctx) : Kernel(ctx) {
    OP_REQUIRES_OK(ctx, ctx->GetAttr("num_features", &num_features_));
  }

  void Run(OpKernelContext* ctx) override {
    const Tensor& rows = ctx->input(0);
    const Tensor& inverse = ctx->input(1);
    const Tensor& row_splits = ctx->input(2);
    const Tensor& grad = ctx->input(3);
    OP_REQUIRES_OK(ctx, CheckRank("rows", rows, 2));
    OP_REQUIRES_OK(ctx, CheckInverse(inverse, rows.dim_size(0)));
    OP_REQUIRES_OK(ctx, CheckSplits("row_splits", row_splits, inverse.NumElements()));
    OP_REQUIRES_OK(ctx, CheckRank("grad", grad, 2));
    const Bags bags = {row_splits.vec<int64_t>().data(), row_splits.NumElements() - 1, nullptr,
                       Combiner::kSum, num_features_};
    OP_REQUIRES_OK(ctx, CheckFeatures("bags", bags.count, num_features_));
    OP_REQUIRES_OK(ctx, CheckDim("grad", grad, 0, bags.rows()));
    OP_REQUIRES_OK(ctx, CheckDim("grad", grad, 1, num_features_ * rows.dim_size(1)));
    Tensor* products;
    OP_REQUIRES_OK(ctx, ctx->allocate_output(0, inverse.shape(), &products));
    IntraOpPool pool(ctx);
    RowProducts(rows.matrix<float>().data(), inverse.vec<int32_t>().data(), bags,
                grad.matrix<float>().data(), rows.dim_size(1), products->vec<float>().data(),
                &pool);
  }

 private:
  int64_t num_features_;
};

REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingDuplicate").Device(DEVICE_CPU),
                        EmbeddingDuplicateOp);
REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingRowProducts").Device(DEVICE_CPU),
                        EmbeddingRowProductsOp);

}  // namespace sparse_emb
