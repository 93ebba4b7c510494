#include "cc/kernels/adapters.h"
#include "cc/kernels/bag_inputs.h"
#include "cc/lib/max_pool.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace sparse_emb {

using tensorflow::DEVICE_CPU;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;

class EmbeddingMaxPoolOp : public Kernel {
 public:
  using Kernel::Kernel;

  void Run(OpKernelContext* ctx) override {
    const Tensor& rows = ctx->input(0);
    const Tensor& inverse = ctx->input(1);
    const Tensor& row_splits = ctx->input(2);
    OP_REQUIRES_OK(ctx, CheckRank("rows", rows, 2));
    OP_REQUIRES_OK(ctx, CheckInverse(inverse, rows.dim_size(0)));
    OP_REQUIRES_OK(ctx, CheckSplits("row_splits", row_splits, inverse.NumElements()));
    const int64_t num_bags = row_splits.NumElements() - 1;
    Tensor *values, *argmax;
    OP_REQUIRES_OK(ctx, AllocateOutput(ctx, 0, {num_bags, rows.dim_size(1)}, &values));
    OP_REQUIRES_OK(ctx, AllocateOutput(ctx, 1, {num_bags, rows.dim_size(1)}, &argmax));
    IntraOpPool pool(ctx);
    MaxPoolRows(rows.matrix<float>().data(), inverse.vec<int32_t>().data(),
                row_splits.vec<int64_t>().data(), num_bags, rows.dim_size(1),
                values->matrix<float>().data(), argmax->matrix<int32_t>().data(), &pool);
  }
};

class EmbeddingMaxPoolGradOp : public Kernel {
 public:
  using Kernel::Kernel;

  void Run(OpKernelContext* ctx) override {
    const Tensor& grad = ctx->input(0);
    const Tensor& argmax = ctx->input(1);
    OP_REQUIRES_OK(ctx, CheckRank("grad", grad, 2));
    OP_REQUIRES_OK(ctx, CheckRank("argmax", argmax, 2));
    OP_REQUIRES_OK(ctx, CheckRank("num_unique", ctx->input(2), 0));
    OP_REQUIRES_OK(ctx, CheckDim("argmax", argmax, 0, grad.dim_size(0)));
    OP_REQUIRES_OK(ctx, CheckDim("argmax", argmax, 1, grad.dim_size(1)));
    const int64_t num_unique = ctx->input(2).scalar<int32_t>()();
    OP_REQUIRES(ctx, num_unique >= 0,
                absl::InvalidArgumentError(
                    absl::StrCat("num_unique must not be negative, got ", num_unique)));
    const auto rows = argmax.flat<int32_t>();
    for (int64_t i = 0; i < rows.size(); ++i) {
      OP_REQUIRES(ctx, rows(i) >= -1 && rows(i) < num_unique,
                  absl::InvalidArgumentError(
                      absl::StrCat("argmax must be in [-1, ", num_unique, "), got ", rows(i))));
    }
    Tensor* grad_rows;
    OP_REQUIRES_OK(ctx, AllocateOutput(ctx, 0, {num_unique, grad.dim_size(1)}, &grad_rows));
    ReduceMaxPooledGrads(grad.matrix<float>().data(), rows.data(), grad.dim_size(0), num_unique,
                         grad.dim_size(1), grad_rows->matrix<float>().data());
  }
};

REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingMaxPool").Device(DEVICE_CPU), EmbeddingMaxPoolOp);
REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingMaxPoolGrad").Device(DEVICE_CPU),
                        EmbeddingMaxPoolGradOp);

}  // namespace sparse_emb
