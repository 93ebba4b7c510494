#include <algorithm>
#include <limits>
#include <vector>

#include "cc/kernels/adapters.h"
#include "cc/lib/key_dedup.h"
#include "cc/ops/feature_attrs.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace sparse_emb {

using tensorflow::DEVICE_CPU;
using tensorflow::OpInputList;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;

class EmbeddingKeyDedupOp : public Kernel {
 public:
  explicit EmbeddingKeyDedupOp(OpKernelConstruction* ctx) : Kernel(ctx) {
    OP_REQUIRES_OK(ctx, attrs_.Get(ctx));
  }

  void Run(OpKernelContext* ctx) override {
    const Tensor& keys = ctx->input(0);
    OpInputList feature_splits;
    OP_REQUIRES_OK(ctx, CheckRank("keys", keys, 1));
    OP_REQUIRES_OK(ctx, ctx->input_list("feature_splits", &feature_splits));
    const int64_t n = keys.NumElements();
    OP_REQUIRES(ctx, n <= std::numeric_limits<int32_t>::max(),
                absl::InvalidArgumentError(
                    absl::StrCat("keys must have fewer than 2^31 elements, got ", n)));
    const int64_t one_feature[] = {0, n};
    const int64_t* splits = one_feature;
    if (feature_splits.size() == 1) {
      OP_REQUIRES_OK(ctx,
                     CheckDim("feature_splits", feature_splits[0], 0, attrs_.tables.size() + 1));
      OP_REQUIRES_OK(ctx, CheckSplits("feature_splits", feature_splits[0], n));
      splits = feature_splits[0].vec<int64_t>().data();
    }

    // U is known only at the end, so the unique keys and counts are made in buffers of size N.
    Tensor unique_buffer, counts_buffer;
    Tensor *inverse, *table_splits;
    OP_REQUIRES_OK(ctx, ctx->allocate_temp(tensorflow::DT_INT64, keys.shape(), &unique_buffer));
    OP_REQUIRES_OK(ctx, ctx->allocate_temp(tensorflow::DT_INT32, keys.shape(), &counts_buffer));
    OP_REQUIRES_OK(ctx, ctx->allocate_output(1, keys.shape(), &inverse));
    OP_REQUIRES_OK(ctx,
                   ctx->allocate_output(3, TensorShape({attrs_.num_tables + 1}), &table_splits));
    const int64_t* unique_from = unique_buffer.vec<int64_t>().data();
    const int32_t* counts_from = counts_buffer.vec<int32_t>().data();
    IntraOpPool pool(ctx);
    const int64_t num_unique = DedupKeysByTable(
        keys.vec<int64_t>().data(), splits, attrs_.tables.data(), attrs_.tables.size(),
        attrs_.num_tables, unique_buffer.vec<int64_t>().data(), inverse->vec<int32_t>().data(),
        counts_buffer.vec<int32_t>().data(), table_splits->vec<int64_t>().data(), &pool);

    Tensor *unique, *counts;
    OP_REQUIRES_OK(ctx, ctx->allocate_output(0, TensorShape({num_unique}), &unique));
    OP_REQUIRES_OK(ctx, ctx->allocate_output(2, TensorShape({num_unique}), &counts));
    std::copy(unique_from, unique_from + num_unique, unique->vec<int64_t>().data());
    std::copy(counts_from, counts_from + num_unique, counts->vec<int32_t>().data());
  }

 private:
  KeyDedupAttrs attrs_;
};

REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingKeyDedup").Device(DEVICE_CPU),
                        EmbeddingKeyDedupOp);

}  // namespace sparse_emb
