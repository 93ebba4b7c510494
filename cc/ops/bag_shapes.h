// The shapes of (inverse, row_splits, weights), which EmbeddingDuplicate and EmbeddingGradReduce
// share.
#ifndef TF_SPARSE_EMB_CC_OPS_BAG_SHAPES_H_
#define TF_SPARSE_EMB_CC_OPS_BAG_SHAPES_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace sparse_emb {

// Checks them and num_features; *out is N / F without a combiner, B / F with one. `inverse` and
// `bags` are the positions of the inputs inverse and row_splits (or, where there are none, of what
// would stand there).
inline absl::Status GetCombinedDim(tensorflow::shape_inference::InferenceContext* c, int inverse,
                                   int bags, tensorflow::shape_inference::DimensionHandle* out) {
  using tensorflow::shape_inference::DimensionHandle;
  using tensorflow::shape_inference::ShapeHandle;
  std::string combiner;
  int num_splits, num_weights;
  TF_RETURN_IF_ERROR(c->GetAttr("combiner", &combiner));
  TF_RETURN_IF_ERROR(c->GetAttr("num_splits", &num_splits));
  TF_RETURN_IF_ERROR(c->GetAttr("num_weights", &num_weights));
  int num_features;
  TF_RETURN_IF_ERROR(c->GetAttr("num_features", &num_features));
  ShapeHandle inverse_shape;
  TF_RETURN_IF_ERROR(c->WithRank(c->input(inverse), 1, &inverse_shape));
  if (combiner == "none") {
    if (num_splits != 0 || num_weights != 0) {
      return absl::InvalidArgumentError("row_splits and weights need a combiner, got none");
    }
    return c->Divide(c->Dim(inverse_shape, 0), num_features, /*evenly_divisible=*/true, out);
  }
  if (num_splits != 1 || num_weights > 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("combiner ", combiner, " needs one row_splits and at most one weights, got ",
                     num_splits, " and ", num_weights));
  }
  ShapeHandle splits;
  TF_RETURN_IF_ERROR(c->WithRank(c->input(bags), 1, &splits));
  DimensionHandle num_bags;
  TF_RETURN_IF_ERROR(c->Subtract(c->Dim(splits, 0), 1, &num_bags));
  TF_RETURN_IF_ERROR(c->Divide(num_bags, num_features, /*evenly_divisible=*/true, out));
  if (num_weights == 1) {
    ShapeHandle weights;
    TF_RETURN_IF_ERROR(c->WithRank(c->input(bags + 1), 1, &weights));
    DimensionHandle n;
    TF_RETURN_IF_ERROR(c->Merge(c->Dim(weights, 0), c->Dim(inverse_shape, 0), &n));
  }
  return absl::OkStatus();
}

// The width of values of num_features features of width `dim` each.
inline absl::Status GetWidth(tensorflow::shape_inference::InferenceContext* c,
                             tensorflow::shape_inference::DimensionHandle dim,
                             tensorflow::shape_inference::DimensionHandle* out) {
  int num_features;
  TF_RETURN_IF_ERROR(c->GetAttr("num_features", &num_features));
  return c->Multiply(dim, num_features, out);
}

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_OPS_BAG_SHAPES_H_
