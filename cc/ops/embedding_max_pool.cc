#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace sparse_emb {

using tensorflow::shape_inference::DimensionHandle;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

REGISTER_OP("SparseEmb>EmbeddingMaxPool")
    .Input("rows: float")
    .Input("inverse: int32")
    .Input("row_splits: int64")
    .Output("values: float")
    .Output("argmax: int32")
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle rows, inverse, splits;
      DimensionHandle bags;
      TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 2, &rows));
      TF_RETURN_IF_ERROR(c->WithRank(c->input(1), 1, &inverse));
      TF_RETURN_IF_ERROR(c->WithRank(c->input(2), 1, &splits));
      TF_RETURN_IF_ERROR(c->Subtract(c->Dim(splits, 0), 1, &bags));
      c->set_output(0, c->Matrix(bags, c->Dim(rows, 1)));
      c->set_output(1, c->Matrix(bags, c->Dim(rows, 1)));
      return absl::OkStatus();
    })
    .Doc(R"doc(
EmbeddingDuplicate with the combiner max: the greatest element of each bag, dim by dim.

  values[b, d] = max_{n in bag b} rows[inverse[n], d]

An empty bag is zeros. Of equal elements the first wins: it alone gets the gradient.

rows: float32 [U, D].
inverse: int32 [N], in [0, U).
row_splits: int64 [B + 1]: bag b holds the values row_splits[b] to row_splits[b + 1] - 1. From 0 to
  N, not descending.
values: float32 [B, D].
argmax: int32 [B, D], which of the U rows the element is of; -1 for an empty bag.
)doc");

REGISTER_OP("SparseEmb>EmbeddingMaxPoolGrad")
    .Input("grad: float")
    .Input("argmax: int32")
    .Input("num_unique: int32")
    .Output("grad_rows: float")
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle grad, argmax, merged, size;
      TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 2, &grad));
      TF_RETURN_IF_ERROR(c->WithRank(c->input(1), 2, &argmax));
      TF_RETURN_IF_ERROR(c->Merge(grad, argmax, &merged));
      TF_RETURN_IF_ERROR(c->WithRank(c->input(2), 0, &size));
      DimensionHandle rows;
      TF_RETURN_IF_ERROR(c->MakeDimForScalarInput(2, &rows));
      c->set_output(0, c->Matrix(rows, c->Dim(merged, 1)));
      return absl::OkStatus();
    })
    .Doc(R"doc(
The gradient of EmbeddingMaxPool by its rows.

  grad_rows[u, d] = sum_{b: argmax[b, d] == u} grad[b, d]

grad: float32 [B, D].
argmax: int32 [B, D], in [-1, U).
num_unique: int32 scalar, U.
grad_rows: float32 [U, D].
)doc");

}  // namespace sparse_emb
