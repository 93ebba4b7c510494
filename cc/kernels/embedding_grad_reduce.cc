#include "cc/kernels/adapters.h"
#include "cc/kernels/bag_inputs.h"
#include "cc/lib/grad_reduce.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace sparse_emb {

using tensorflow::DEVICE_CPU;
using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;

class EmbeddingGradReduceOp : public OpKernel {
 public:
  explicit EmbeddingGradReduceOp(OpKernelConstruction* ctx) : OpKernel(ctx) {
    OP_REQUIRES_OK(ctx, GetCombiner(ctx, &pooled_, &combiner_));
  }

  void Compute(OpKernelContext* ctx) override {
    const Tensor& grad = ctx->input(0);
    const Tensor& inverse = ctx->input(1);
    const Tensor& num_unique_input = ctx->input(2);
    OP_REQUIRES_OK(ctx, CheckRank("grad", grad, 2));
    OP_REQUIRES_OK(ctx, CheckRank("num_unique", num_unique_input, 0));
    const int64_t num_unique = num_unique_input.scalar<int32_t>()();
    OP_REQUIRES(ctx, num_unique >= 0,
                absl::InvalidArgumentError(
                    absl::StrCat("num_unique must not be negative, got ", num_unique)));
    OP_REQUIRES_OK(ctx, CheckInverse(inverse, num_unique));
    const int64_t n = inverse.NumElements();
    const int64_t dim = grad.dim_size(1);
    if (!pooled_ && IsIdentity(inverse, num_unique)) {
      OP_REQUIRES_OK(ctx, CheckDim("grad", grad, 0, n));
      ctx->set_output(0, grad);
      return;
    }
    Bags bags;
    if (pooled_) OP_REQUIRES_OK(ctx, GetBags(ctx, n, combiner_, &bags));
    OP_REQUIRES_OK(ctx, CheckDim("grad", grad, 0, pooled_ ? bags.count : n));
    Tensor* out;
    OP_REQUIRES_OK(ctx, ctx->allocate_output(0, TensorShape({num_unique, dim}), &out));
    const float* from = grad.matrix<float>().data();
    float* to = out->matrix<float>().data();
    IntraOpPool pool(ctx);
    if (pooled_) {
      ReducePooledGrads(from, inverse.vec<int32_t>().data(), bags, num_unique, dim, to, &pool);
    } else {
      ReduceGrads(from, inverse.vec<int32_t>().data(), n, num_unique, dim, to, &pool);
    }
  }

 private:
  // Whether every key is its own unique key: no sum has two terms.
  static bool IsIdentity(const Tensor& inverse, int64_t num_unique) {
    const auto values = inverse.vec<int32_t>();
    if (values.size() != num_unique) return false;
    for (int64_t n = 0; n < num_unique; ++n) {
      if (values(n) != n) return false;
    }
    return true;
  }

  bool pooled_;
  Combiner combiner_;
};

REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingGradReduce").Device(DEVICE_CPU),
                        EmbeddingGradReduceOp);

}  // namespace sparse_emb
