#include <array>
#include <string>
#include <vector>

#include "cc/kernels/adapters.h"
#include "cc/kernels/bag_inputs.h"
#include "cc/kernels/embedding_table.h"
#include "cc/lib/update_rules.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace sparse_emb {
namespace {

using tensorflow::DEVICE_CPU;
using tensorflow::OpInputList;
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

// An error for the first gradient that is not finite; `tables` and `splits` say whose it is.
absl::Status CheckFinite(const Tensor& keys, const Tensor& grads,
                         const std::vector<std::string>& tables, const int64_t* splits,
                         WorkerPool* pool) {
  const auto values = grads.matrix<float>();
  const int64_t bad = FirstNonFinite(values.data(), grads.NumElements(), pool);
  if (bad < 0) return absl::OkStatus();
  const int64_t row = bad / grads.dim_size(1);
  const int64_t column = bad % grads.dim_size(1);
  size_t t = 0;
  while (row >= splits[t + 1]) ++t;
  return absl::InvalidArgumentError(
      absl::StrCat("grads[", row - splits[t], ", ", column, "] is ", values.data()[bad], " (key ",
                   keys.vec<int64_t>()(row), " of table '", tables[t], "')"));
}

// The splits of the keys of `num_tables` tables: those of the input list table_splits, or {0, U} in
// `one_table`.
absl::Status GetTableSplits(OpKernelContext* ctx, int64_t num_tables, const Tensor& keys,
                            std::array<int64_t, 2>* one_table, const int64_t** splits) {
  OpInputList table_splits;
  TF_RETURN_IF_ERROR(ctx->input_list("table_splits", &table_splits));
  *one_table = {0, keys.NumElements()};
  *splits = one_table->data();
  if (table_splits.size() == 0) return absl::OkStatus();
  TF_RETURN_IF_ERROR(CheckSplits("table_splits", table_splits[0], keys.NumElements()));
  TF_RETURN_IF_ERROR(CheckDim("table_splits", table_splits[0], 0, num_tables + 1));
  *splits = table_splits[0].vec<int64_t>().data();
  return absl::OkStatus();
}

}  // namespace

class EmbeddingUpdateOp : public OpKernel {
 public:
  explicit EmbeddingUpdateOp(OpKernelConstruction* ctx) : OpKernel(ctx) {
    OP_REQUIRES_OK(ctx, ctx->GetAttr("num_tables", &num_tables_));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("rule", &rule_));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("bindings", &bindings_));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("keys_differ", &keys_differ_));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("check_finite", &check_finite_));
    bindings_.resize(num_tables_);
  }

  void Compute(OpKernelContext* ctx) override {
    const int num_splits = num_tables_ == 1 ? 0 : 1;
    const Tensor& keys = ctx->input(num_tables_);
    const Tensor& grads = ctx->input(num_tables_ + num_splits + 1);
    const Tensor& hypers = ctx->input(num_tables_ + num_splits + 2);
    const Tensor& step = ctx->input(num_tables_ + num_splits + 3);
    OP_REQUIRES_OK(ctx, CheckKeysAndGrads(keys, grads));
    OP_REQUIRES_OK(ctx, CheckRank("hypers", hypers, 1));
    OP_REQUIRES_OK(ctx, CheckRank("step", step, 0));
    std::array<int64_t, 2> one_table;
    const int64_t* splits;
    OP_REQUIRES_OK(ctx, GetTableSplits(ctx, num_tables_, keys, &one_table, &splits));
    const int64_t* all_keys = keys.vec<int64_t>().data();
    std::vector<RefCountPtr<EmbeddingTable>> tables(num_tables_);
    std::vector<std::string> names;
    for (int t = 0; t < num_tables_; ++t) {
      OP_REQUIRES_OK(ctx, GetTable(ctx, &tables[t], t));
      OP_REQUIRES_OK(ctx, CheckDim("grads", grads, 1, (*tables[t])->options().dim));
      OP_REQUIRES_OK(
          ctx, ToAbsl((*tables[t])->CheckKeys(all_keys + splits[t], splits[t + 1] - splits[t])));
      names.push_back((*tables[t])->options().name);
    }
    IntraOpPool pool(ctx);
    if (check_finite_) OP_REQUIRES_OK(ctx, CheckFinite(keys, grads, names, splits, &pool));
    const float* hyper = hypers.vec<float>().data();
    const RuleCall call = {rule_, {hyper, hyper + hypers.NumElements()}, step.scalar<int64_t>()()};
    for (int t = 0; num_tables_ > 1 && t < num_tables_; ++t) {
      OP_REQUIRES_OK(ctx, ToAbsl((*tables[t])->CheckUpdate(call, bindings_[t])));
      OP_REQUIRES_OK(
          ctx,
          ToAbsl((*tables[t])->CheckRoom(all_keys + splits[t], splits[t + 1] - splits[t], &pool)));
    }
    for (int t = 0; t < num_tables_; ++t) {
      OP_REQUIRES_OK(
          ctx,
          ToAbsl((*tables[t])
                     ->Update(all_keys + splits[t],
                              grads.matrix<float>().data() + splits[t] * grads.dim_size(1),
                              splits[t + 1] - splits[t], call, bindings_[t], keys_differ_, &pool)));
    }
  }

 private:
  int num_tables_;
  std::string rule_;
  std::vector<int64_t> bindings_;
  bool keys_differ_;
  bool check_finite_;
};

class EmbeddingCheckFiniteOp : public OpKernel {
 public:
  explicit EmbeddingCheckFiniteOp(OpKernelConstruction* ctx) : OpKernel(ctx) {
    OP_REQUIRES_OK(ctx, ctx->GetAttr("table_names", &table_names_));
  }

  void Compute(OpKernelContext* ctx) override {
    const Tensor& keys = ctx->input(0);
    const Tensor& grads = ctx->input(table_names_.size() == 1 ? 1 : 2);
    OP_REQUIRES_OK(ctx, CheckKeysAndGrads(keys, grads));
    std::array<int64_t, 2> one_table;
    const int64_t* splits;
    OP_REQUIRES_OK(ctx, GetTableSplits(ctx, table_names_.size(), keys, &one_table, &splits));
    IntraOpPool pool(ctx);
    OP_REQUIRES_OK(ctx, CheckFinite(keys, grads, table_names_, splits, &pool));
  }

 private:
  std::vector<std::string> table_names_;
};

REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingUpdate").Device(DEVICE_CPU), EmbeddingUpdateOp);
REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingCheckFinite").Device(DEVICE_CPU),
                        EmbeddingCheckFiniteOp);

}  // namespace sparse_emb
