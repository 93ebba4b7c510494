// The inputs (inverse, row_splits, weights) that EmbeddingDuplicate and EmbeddingGradReduce share,
// validated.
#ifndef TF_SPARSE_EMB_CC_KERNELS_BAG_INPUTS_H_
#define TF_SPARSE_EMB_CC_KERNELS_BAG_INPUTS_H_

#include <algorithm>
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
  const int32_t* values = inverse.vec<int32_t>().data();
  const int64_t size = inverse.NumElements();
  // Without a way out, so that the compiler makes a vector loop of it; a negative one is great
  // then, greater than any that is none, however many rows there are.
  uint32_t greatest = 0;
  for (int64_t n = 0; n < size; ++n)
    greatest = std::max(greatest, static_cast<uint32_t>(values[n]));
  if (size == 0 || greatest < std::min(num_unique, int64_t{1} << 31)) return absl::OkStatus();
  const int32_t* wrong = std::find_if(
      values, values + size, [&](int32_t value) { return value < 0 || value >= num_unique; });
  return absl::InvalidArgumentError(absl::StrCat(
      "inverse must be in [0, ", num_unique, "), got inverse[", wrong - values, "] = ", *wrong));
}

// Whether every key is its own unique key.
inline bool IsIdentity(const tensorflow::Tensor& inverse, int64_t num_unique) {
  const auto values = inverse.vec<int32_t>();
  if (values.size() != num_unique) return false;
  for (int64_t n = 0; n < num_unique; ++n) {
    if (values(n) != n) return false;
  }
  return true;
}

// That `count` keys or bags are those of F features, as many of each. What is kept for each feature
// takes memory where there are no keys too.
inline absl::Status CheckFeatures(const char* what, int64_t count, int64_t num_features) {
  constexpr int64_t kMaxFeatures = 1 << 24;
  if (num_features > kMaxFeatures) {
    return absl::InvalidArgumentError(
        absl::StrCat("num_features must be at most ", kMaxFeatures, ", got ", num_features));
  }
  if (count % num_features == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("there must be as many ", what,
                                                 " of each of num_features = ", num_features,
                                                 " features, got ", count));
}

// The bags of a pooling op whose lists row_splits and weights are inputs.
inline absl::Status GetBags(tensorflow::OpKernelContext* ctx, int64_t n, Combiner combiner,
                            int64_t num_features, Bags* out) {
  tensorflow::OpInputList row_splits, weights;
  TF_RETURN_IF_ERROR(ctx->input_list("row_splits", &row_splits));
  TF_RETURN_IF_ERROR(ctx->input_list("weights", &weights));
  if (row_splits.size() != 1 || weights.size() > 1) {  // eager mode runs no shape function
    return absl::InvalidArgumentError(
        absl::StrCat("a combiner needs one row_splits and at most one weights, got ",
                     row_splits.size(), " and ", weights.size()));
  }
  TF_RETURN_IF_ERROR(CheckSplits("row_splits", row_splits[0], n));
  *out = {row_splits[0].vec<int64_t>().data(), row_splits[0].NumElements() - 1, nullptr, combiner,
          num_features};
  if (weights.size() == 1) {
    TF_RETURN_IF_ERROR(CheckRank("weights", weights[0], 1));
    TF_RETURN_IF_ERROR(CheckDim("weights", weights[0], 0, n));
    out->weights = weights[0].vec<float>().data();
  }
  return CheckFeatures("bags", out->count, num_features);
}

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_KERNELS_BAG_INPUTS_H_
