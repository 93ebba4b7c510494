#include <string>
#include <vector>

#include "cc/kernels/adapters.h"
#include "cc/kernels/embedding_table.h"
#include "cc/kernels/input_splits.h"
#include "cc/lib/update_rules.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace sparse_emb {
namespace {

using tensorflow::DEVICE_CPU;
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
                         const std::vector<std::string>& tables, const TableSplits& splits,
                         WorkerPool* pool) {
  const auto values = grads.matrix<float>();
  const int64_t bad = FirstNonFinite(values.data(), grads.NumElements(), pool);
  if (bad < 0) return absl::OkStatus();
  const int64_t row = bad / grads.dim_size(1);
  const int64_t column = bad % grads.dim_size(1);
  size_t t = 0;
  while (row >= splits.begin(t) + splits.size(t)) ++t;
  return absl::InvalidArgumentError(
      absl::StrCat("grads[", row - splits.begin(t), ", ", column, "] is ", values.data()[bad],
                   " (key ", keys.vec<int64_t>()(row), " of table '", tables[t], "')"));
}

}  // namespace

class EmbeddingUpdateOp : public Kernel {
 public:
  explicit EmbeddingUpdateOp(OpKernelConstruction* ctx) : Kernel(ctx) {
    OP_REQUIRES_OK(ctx, ctx->GetAttr("num_tables", &num_tables_));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("rule", &rule_));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("bindings", &bindings_));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("keys_differ", &keys_differ_));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("check_finite", &check_finite_));
    OP_REQUIRES(
        ctx, bindings_.empty() || static_cast<int>(bindings_.size()) == num_tables_,
        absl::InvalidArgumentError(absl::StrCat("bindings must be one for each of ", num_tables_,
                                                " tables, got ", bindings_.size())));
    bindings_.resize(num_tables_);
  }

  void Run(OpKernelContext* ctx) override {
    // Counted from the end: how many table_splits there are is checked below.
    const Tensor& keys = ctx->input(num_tables_);
    const Tensor& grads = ctx->input(ctx->num_inputs() - 3);
    const Tensor& hypers = ctx->input(ctx->num_inputs() - 2);
    const Tensor& step = ctx->input(ctx->num_inputs() - 1);
    OP_REQUIRES_OK(ctx, CheckKeysAndGrads(keys, grads));
    OP_REQUIRES_OK(ctx, CheckRank("hypers", hypers, 1));
    OP_REQUIRES_OK(ctx, CheckRank("step", step, 0));
    TableSplits splits;
    OP_REQUIRES_OK(ctx, splits.Get(ctx, num_tables_, keys.NumElements()));
    const int64_t* all_keys = keys.vec<int64_t>().data();
    std::vector<RefCountPtr<EmbeddingTable>> tables(num_tables_);
    std::vector<std::string> names;
    for (int t = 0; t < num_tables_; ++t) {
      OP_REQUIRES_OK(ctx, GetTable(ctx, &tables[t], t));
      OP_REQUIRES_OK(ctx, CheckDim("grads", grads, 1, (*tables[t])->options().dim));
      names.push_back((*tables[t])->options().name);
    }
    IntraOpPool pool(ctx);
    if (check_finite_) OP_REQUIRES_OK(ctx, CheckFinite(keys, grads, names, splits, &pool));
    const float* hyper = hypers.vec<float>().data();
    const RuleCall call = {rule_, {hyper, hyper + hypers.NumElements()}, step.scalar<int64_t>()()};
    for (int t = 0; num_tables_ > 1 && t < num_tables_; ++t) {
      const int64_t* table_keys = all_keys + splits.begin(t);
      OP_REQUIRES_OK(ctx, ToAbsl((*tables[t])->CheckKeys(table_keys, splits.size(t))));
      OP_REQUIRES_OK(ctx, ToAbsl((*tables[t])->CheckUpdate(call, bindings_[t])));
      OP_REQUIRES_OK(ctx, ToAbsl((*tables[t])->CheckRoom(table_keys, splits.size(t), &pool)));
    }
    const int64_t dim = grads.dim_size(1);
    const float* const all_grads = grads.matrix<float>().data();
    OP_REQUIRES_OK(ctx,
                   splits.ForEachTable(30 + dim, &pool, [&](int64_t t, WorkerPool* table_pool) {
                     const int64_t begin = splits.begin(t);
                     return (*tables[t])
                         ->Update(all_keys + begin, all_grads + begin * dim, splits.size(t), call,
                                  bindings_[t], keys_differ_, table_pool);
                   }));
  }

 private:
  int num_tables_;
  std::string rule_;
  std::vector<int64_t> bindings_;
  bool keys_differ_;
  bool check_finite_;
};

class EmbeddingCheckFiniteOp : public Kernel {
 public:
  explicit EmbeddingCheckFiniteOp(OpKernelConstruction* ctx) : Kernel(ctx) {
    OP_REQUIRES_OK(ctx, ctx->GetAttr("table_names", &table_names_));
  }

  void Run(OpKernelContext* ctx) override {
    const Tensor& keys = ctx->input(0);
    const Tensor& grads = ctx->input(ctx->num_inputs() - 1);
    OP_REQUIRES_OK(ctx, CheckKeysAndGrads(keys, grads));
    TableSplits splits;
    OP_REQUIRES_OK(ctx, splits.Get(ctx, table_names_.size(), keys.NumElements()));
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
