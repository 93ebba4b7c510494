#include <vector>

#include "cc/kernels/adapters.h"
#include "cc/kernels/embedding_table.h"
#include "cc/lib/update_rules.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace sparse_emb {
namespace {

using tensorflow::DEVICE_CPU;
using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::core::RefCountPtr;

// keys [U] and grads [U, D].
absl::Status CheckKeysAndGrads(const Tensor& keys, const Tensor& grads) {
  TF_RETURN_IF_ERROR(CheckRank("keys", keys, 1));
  TF_RETURN_IF_ERROR(CheckRank("grads", grads, 2));
  return CheckDim("grads", grads, 0, keys.NumElements());
}

absl::Status CheckFinite(const Tensor& keys, const Tensor& grads, const std::string& table_name,
                         WorkerPool* pool) {
  const auto values = grads.matrix<float>();
  const int64_t bad = FirstNonFinite(values.data(), grads.NumElements(), pool);
  if (bad < 0) return absl::OkStatus();
  const int64_t row = bad / grads.dim_size(1);
  const int64_t column = bad % grads.dim_size(1);
  return absl::InvalidArgumentError(
      absl::StrCat("grads[", row, ", ", column, "] is ", values.data()[bad], " (key ",
                   keys.vec<int64_t>()(row), " of table '", table_name, "')"));
}

}  // namespace

class EmbeddingUpdateOp : public OpKernel {
 public:
  explicit EmbeddingUpdateOp(OpKernelConstruction* ctx) : OpKernel(ctx) {
    OP_REQUIRES_OK(ctx, ctx->GetAttr("rule", &rule_));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("binding", &binding_));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("keys_differ", &keys_differ_));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("check_finite", &check_finite_));
  }

  void Compute(OpKernelContext* ctx) override {
    RefCountPtr<EmbeddingTable> table;
    OP_REQUIRES_OK(ctx, GetTable(ctx, &table));
    const Tensor& keys = ctx->input(1);
    const Tensor& grads = ctx->input(2);
    const Tensor& hypers = ctx->input(3);
    const Tensor& step = ctx->input(4);
    OP_REQUIRES_OK(ctx, CheckKeysAndGrads(keys, grads));
    OP_REQUIRES_OK(ctx, CheckDim("grads", grads, 1, (*table)->options().dim));
    OP_REQUIRES_OK(ctx, CheckRank("hypers", hypers, 1));
    OP_REQUIRES_OK(ctx, CheckRank("step", step, 0));
    IntraOpPool pool(ctx);
    if (check_finite_) {
      OP_REQUIRES_OK(ctx, CheckFinite(keys, grads, (*table)->options().name, &pool));
    }
    const float* hyper = hypers.vec<float>().data();
    const RuleCall call = {rule_, {hyper, hyper + hypers.NumElements()}, step.scalar<int64_t>()()};
    OP_REQUIRES_OK(
        ctx, ToAbsl((*table)->Update(keys.vec<int64_t>().data(), grads.matrix<float>().data(),
                                     keys.NumElements(), call, binding_, keys_differ_, &pool)));
  }

 private:
  std::string rule_;
  int64_t binding_;
  bool keys_differ_;
  bool check_finite_;
};

class EmbeddingCheckFiniteOp : public OpKernel {
 public:
  explicit EmbeddingCheckFiniteOp(OpKernelConstruction* ctx) : OpKernel(ctx) {
    OP_REQUIRES_OK(ctx, ctx->GetAttr("table_name", &table_name_));
  }

  void Compute(OpKernelContext* ctx) override {
    const Tensor& keys = ctx->input(0);
    const Tensor& grads = ctx->input(1);
    OP_REQUIRES_OK(ctx, CheckKeysAndGrads(keys, grads));
    IntraOpPool pool(ctx);
    OP_REQUIRES_OK(ctx, CheckFinite(keys, grads, table_name_, &pool));
  }

 private:
  std::string table_name_;
};

REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingUpdate").Device(DEVICE_CPU), EmbeddingUpdateOp);
REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingCheckFinite").Device(DEVICE_CPU),
                        EmbeddingCheckFiniteOp);

}  // namespace sparse_emb
