#include <algorithm>
#include <limits>
#include <vector>

#include "cc/kernels/adapters.h"
#include "cc/kernels/bag_inputs.h"
#include "cc/lib/grad_reduce.h"
#include "cc/lib/key_dedup.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace sparse_emb {

using tensorflow::DEVICE_CPU;
using tensorflow::OpInputList;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;

class EmbeddingGradReduceOp : public Kernel {
 public:
  explicit EmbeddingGradReduceOp(OpKernelConstruction* ctx) : Kernel(ctx) {
    OP_REQUIRES_OK(ctx, GetCombiner(ctx, &pooled_, &combiner_));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("num_features", &num_features_));
  }

  void Run(OpKernelContext* ctx) override {
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
    OP_REQUIRES(ctx, grad.dim_size(1) % num_features_ == 0,
                absl::InvalidArgumentError(
                    absl::StrCat("grad must be as wide for each of num_features = ", num_features_,
                                 " features, got shape ", grad.shape().DebugString())));
    const int64_t dim = grad.dim_size(1) / num_features_;
    Bags bags;
    if (pooled_) {
      OP_REQUIRES_OK(ctx, GetBags(ctx, n, combiner_, num_features_, &bags));
    } else {
      OP_REQUIRES_OK(ctx, CheckFeatures("keys", n, num_features_));
    }
    OP_REQUIRES_OK(ctx, CheckDim("grad", grad, 0, pooled_ ? bags.rows() : n / num_features_));
    if (!pooled_ && num_features_ == 1 &&
        IsIdentity(inverse, num_unique)) {  // no sum has two terms
      ctx->set_output(0, grad);
      return;
    }
    Tensor* out;
    OP_REQUIRES_OK(ctx, AllocateOutput(ctx, 0, {num_unique, dim}, &out));
    const float* from = grad.matrix<float>().data();
    float* to = out->matrix<float>().data();
    IntraOpPool pool(ctx);
    if (pooled_) {
      ReducePooledGrads(from, inverse.vec<int32_t>().data(), bags, num_unique, dim, to, &pool);
    } else {
      ReduceGrads(from, inverse.vec<int32_t>().data(), n, num_unique, dim, num_features_, to,
                  &pool);
    }
  }

 private:
  bool pooled_;
  Combiner combiner_;
  int64_t num_features_;
};

class EmbeddingGradReduceByKeyOp : public Kernel {
 public:
  using Kernel::Kernel;

  void Run(OpKernelContext* ctx) override {
    OpInputList keys, grads;
    OP_REQUIRES_OK(ctx, ctx->input_list("keys", &keys));
    OP_REQUIRES_OK(ctx, ctx->input_list("grads", &grads));
    const int num_tables = keys.size();
    std::vector<int64_t> splits = {0}, tables;
    std::vector<const float*> grad_rows;
    for (int t = 0; t < num_tables; ++t) {
      OP_REQUIRES_OK(ctx, CheckRank("keys", keys[t], 1));
      OP_REQUIRES_OK(ctx, CheckRank("grads", grads[t], 2));
      OP_REQUIRES_OK(ctx, CheckDim("grads", grads[t], 0, keys[t].NumElements()));
      OP_REQUIRES_OK(ctx, CheckDim("grads", grads[t], 1, grads[0].dim_size(1)));
      splits.push_back(splits.back() + keys[t].NumElements());
      tables.push_back(t);
      grad_rows.push_back(grads[t].matrix<float>().data());
    }
    const int64_t n = splits.back();
    const int64_t dim = grads[0].dim_size(1);
    OP_REQUIRES(ctx, n <= std::numeric_limits<int32_t>::max(),
                absl::InvalidArgumentError(
                    absl::StrCat("keys must have fewer than 2^31 elements, got ", n)));

    Tensor all_keys = keys[0], unique, inverse, counts;
    const TensorShape shape({n});
    if (num_tables > 1) {
      OP_REQUIRES_OK(ctx, ctx->allocate_temp(tensorflow::DT_INT64, shape, &all_keys));
      for (int t = 0; t < num_tables; ++t) {
        const auto from = keys[t].vec<int64_t>();
        std::copy(from.data(), from.data() + from.size(),
                  all_keys.vec<int64_t>().data() + splits[t]);
      }
    }
    OP_REQUIRES_OK(ctx, ctx->allocate_temp(tensorflow::DT_INT64, shape, &unique));
    OP_REQUIRES_OK(ctx, ctx->allocate_temp(tensorflow::DT_INT32, shape, &inverse));
    OP_REQUIRES_OK(ctx, ctx->allocate_temp(tensorflow::DT_INT32, shape, &counts));
    Tensor *unique_keys, *table_splits, *grad_unique;
    OP_REQUIRES_OK(ctx, ctx->allocate_output(1, TensorShape({num_tables + 1}), &table_splits));
    int64_t* unique_splits = table_splits->vec<int64_t>().data();
    const int64_t* unique_from = unique.vec<int64_t>().data();
    IntraOpPool pool(ctx);
    const int64_t num_unique =
        DedupKeysByTable(all_keys.vec<int64_t>().data(), splits.data(), tables.data(), num_tables,
                         num_tables, unique.vec<int64_t>().data(), inverse.vec<int32_t>().data(),
                         counts.vec<int32_t>().data(), unique_splits, &pool);
    if (num_tables == 1 && num_unique == n) {  // each gradient is its own sum
      ctx->set_output(0, keys[0]);
      ctx->set_output(2, grads[0]);
      return;
    }
    OP_REQUIRES_OK(ctx, ctx->allocate_output(0, TensorShape({num_unique}), &unique_keys));
    OP_REQUIRES_OK(ctx, AllocateOutput(ctx, 2, {num_unique, dim}, &grad_unique));
    std::copy(unique_from, unique_from + num_unique, unique_keys->vec<int64_t>().data());
    ReduceGradsByTable(grad_rows, splits.data(), inverse.vec<int32_t>().data(), unique_splits, dim,
                       grad_unique->matrix<float>().data(), &pool);
  }
};

REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingGradReduceByKey").Device(DEVICE_CPU),
                        EmbeddingGradReduceByKeyOp);
REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingGradReduce").Device(DEVICE_CPU),
                        EmbeddingGradReduceOp);

}  // namespace sparse_emb
