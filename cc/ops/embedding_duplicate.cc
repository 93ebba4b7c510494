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
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle rows;
      TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 2, &rows));
      DimensionHandle combined;
      TF_RETURN_IF_ERROR(GetCombinedDim(c, 1, 2, &combined));
      c->set_output(0, c->Matrix(combined, c->Dim(rows, 1)));
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
values: float32 [N, D], or [B, D] with a combiner.
)doc");

REGISTER_OP("SparseEmb>EmbeddingRowProducts")
    .Input("rows: float")
    .Input("inverse: int32")
    .Input("row_splits: int64")
    .Input("grad: float")
    .Output("products: float")
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle rows, inverse, splits, grad;
      DimensionHandle dim, bags;
      TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 2, &rows));
      TF_RETURN_IF_ERROR(c->WithRank(c->input(1), 1, &inverse));
      TF_RETURN_IF_ERROR(c->WithRank(c->input(2), 1, &splits));
      TF_RETURN_IF_ERROR(c->WithRank(c->input(3), 2, &grad));
      TF_RETURN_IF_ERROR(c->Merge(c->Dim(rows, 1), c->Dim(grad, 1), &dim));
      TF_RETURN_IF_ERROR(c->Subtract(c->Dim(splits, 0), 1, &bags));
      TF_RETURN_IF_ERROR(c->Merge(c->Dim(grad, 0), bags, &bags));
      c->set_output(0, inverse);
      return absl::OkStatus();
    })
    .Doc(R"doc(
The inner products of each value's row and its bag's gradient: the derivative of sum-pooling by its
weights.

    products[n] = sum_d rows[inverse[n], d] grad[b, d]   for n in bag b

rows: float32 [U, D].
inverse: int32 [N], in [0, U).
row_splits: int64 [B + 1], as for EmbeddingDuplicate.
grad: float32 [B, D].
products: float32 [N].
)doc");

}  // namespace sparse_emb
