#include "cc/ops/bag_shapes.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace sparse_emb {

using tensorflow::shape_inference::DimensionHandle;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

REGISTER_OP("SparseEmb>EmbeddingDuplicate")
    .Input("rows: float")
    .Input("inverse: int32")
    .Input("row_splits: num_splits * int64")
    .Input("weights: num_weights * float")
    .Output("values: float")
    .Attr("combiner: {'none', 'sum', 'mean', 'sqrtn'} = 'none'")
    .Attr("num_splits: int >= 0 = 0")
    .Attr("num_weights: int >= 0 = 0")
    .Attr("num_features: int >= 1 = 1")
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle rows;
      TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 2, &rows));
      DimensionHandle combined, width;
      TF_RETURN_IF_ERROR(GetCombinedDim(c, 1, 2, &combined));
      TF_RETURN_IF_ERROR(GetWidth(c, c->Dim(rows, 1), &width));
      c->set_output(0, c->Matrix(combined, width));
      return absl::OkStatus();
    })
    .Doc(R"doc(
Undoes EmbeddingKeyDedup: a gather, or pooled bags without the [N, D] tensor in between.

    none:  values[n] = rows[inverse[n]]
    other: values[b] = sum_{n in bag b} c[n] rows[inverse[n]]
    sum:   c[n] = w[n]
    mean:  c[n] = w[n] / sum_bag(w)
    sqrtn: c[n] = w[n] / sqrt(sum_bag(w^2))

0 / 0 is 0. An empty bag is zeros.

rows: float32 [U, D].
inverse: int32 [N], in [0, U).
row_splits: for a combiner, one int64 [B + 1]: bag b is [row_splits[b], row_splits[b + 1]). It
  begins with 0, ends with N and does not descend.
weights: for a combiner, none (then w = 1) or one float32 [N].
num_features: F. The bags (or keys) are those of F features, B / F of each, one feature after the
  other, whose values stand side by side: bag b = f B / F + r has its value at values[r, f D] to
  values[r, (f + 1) D - 1].
values: float32 [N / F, F D], or [B / F, F D] with a combiner.
)doc");

REGISTER_OP("SparseEmb>EmbeddingRowProducts")
    .Input("rows: float")
    .Input("inverse: int32")
    .Input("row_splits: int64")
    .Input("grad: float")
    .Output("products: float")
    .Attr("num_features: int >= 1 = 1")
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle rows, inverse, splits, grad;
      DimensionHandle dim, bags;
      int num_features;
      TF_RETURN_IF_ERROR(c->GetAttr("num_features", &num_features));
      TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 2, &rows));
      TF_RETURN_IF_ERROR(c->WithRank(c->input(1), 1, &inverse));
      TF_RETURN_IF_ERROR(c->WithRank(c->input(2), 1, &splits));
      TF_RETURN_IF_ERROR(c->WithRank(c->input(3), 2, &grad));
      TF_RETURN_IF_ERROR(GetWidth(c, c->Dim(rows, 1), &dim));
      TF_RETURN_IF_ERROR(c->Merge(dim, c->Dim(grad, 1), &dim));
      TF_RETURN_IF_ERROR(c->Subtract(c->Dim(splits, 0), 1, &bags));
      TF_RETURN_IF_ERROR(c->Divide(bags, num_features, /*evenly_divisible=*/true, &bags));
      TF_RETURN_IF_ERROR(c->Merge(c->Dim(grad, 0), bags, &bags));
      c->set_output(0, inverse);
      return absl::OkStatus();
    })
    .Doc(R"doc(
The inner products of each value's row and its bag's gradient: the derivative of sum-pooling by its
weights.

    products[n] = sum_d rows[inverse[n], d] grad_b[d]   for n in bag b, grad_b its part of grad

rows: float32 [U, D].
inverse: int32 [N], in [0, U).
row_splits: int64 [B + 1], as for EmbeddingDuplicate.
grad: float32 [B / F, F D], the F = num_features as for EmbeddingDuplicate.
products: float32 [N].
)doc");

}  // namespace sparse_emb
