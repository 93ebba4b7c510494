// The inputs (inverse, row_splits, weights) that EmbeddingDuplicate and EmbeddingGradReduce share,
// validated.
#ifndef TF_SPARSE_EMB_CC_KERNELS_BAG_INPUTS_H_
#define TF_SPARSE_EMB_CC_KERNELS_BAG_INPUTS_H_

#include <string>

#include "cc/kernels/adapters.h"
#include "cc/lib/duplicate.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace sparse_emb {

// The attribute `combiner`; *pooled is false for "none".
inline absl::Status GetCombiner(tensorflow::OpKernelConstruction* ctx, bool* pooled,
                                Combiner* combiner) {
  std::string name;
  TF_RETURN_IF_ERROR(ctx->GetAttr("combiner", &name));
  *pooled = name != "none";
  *combiner = name == "mean"    ? Combiner::kMean
              : name == "sqrtn" ? Combiner::kSqrtN
                                : Combiner::kSum;
  return absl::OkStatus();
}

// inverse [N] in [0, num_unique).
inline absl::Status CheckInverse(const tensorflow::Tensor& inverse, int64_t num_unique) {
  TF_RETURN_IF_ERROR(CheckRank("inverse", inverse, 1));
  const auto values = inverse.vec<int32_t>();
  for (int64_t n = 0; n < values.size(); ++n) {
    if (values(n) >= 0 && values(n) < num_unique) continue;
    return absl::InvalidArgumentError(absl::StrCat("inverse must be in [0, ", num_unique,
                                                   "), got inverse[", n, "] = ", values(n)));
  }
  return absl::OkStatus();
}

// The bags of a pooling op whose lists row_splits and weights are inputs.
inline absl::Status GetBags(tensorflow::OpKernelContext* ctx, int64_t n, Combiner combiner,
                            Bags* out) {
  tensorflow::OpInputList row_splits, weights;
  TF_RETURN_IF_ERROR(ctx->input_list("row_splits", &row_splits));
  TF_RETURN_IF_ERROR(ctx->input_list("weights", &weights));
  TF_RETURN_IF_ERROR(CheckSplits("row_splits", row_splits[0], n));
  *out = {row_splits[0].vec<int64_t>().data(), row_splits[0].NumElements() - 1, nullptr, combiner};
  if (weights.size() == 1) {
    TF_RETURN_IF_ERROR(CheckRank("weights", weights[0], 1));
    TF_RETURN_IF_ERROR(CheckDim("weights", weights[0], 0, n));
    out->weights = weights[0].vec<float>().data();
  }
  return absl::OkStatus();
}

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_KERNELS_BAG_INPUTS_H_
