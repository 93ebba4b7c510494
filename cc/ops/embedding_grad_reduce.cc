#include "cc/ops/bag_shapes.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace sparse_emb {

using tensorflow::shape_inference::DimensionHandle;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

REGISTER_OP("SparseEmb>EmbeddingGradReduce")
    .Input("grad: float")
    .Input("inverse: int32")
    .Input("num_unique: int32")
    .Input("row_splits: num_splits * int64")
    .Input("weights: num_weights * float")
    .Output("grad_unique: float")
    .Attr("combiner: {'none', 'sum', 'mean', 'sqrtn'} = 'none'")
    .Attr("num_splits: int >= 0 = 0")
    .Attr("num_weights: int >= 0 = 0")
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle grad, scalar;
      TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 2, &grad));
      TF_RETURN_IF_ERROR(c->WithRank(c->input(2), 0, &scalar));
      DimensionHandle combined, num_unique;
      TF_RETURN_IF_ERROR(GetCombinedDim(c, 1, 3, &combined));
      TF_RETURN_IF_ERROR(c->Merge(c->Dim(grad, 0), combined, &combined));
      TF_RETURN_IF_ERROR(c->MakeDimForScalarInput(2, &num_unique));
      c->set_output(0, c->Matrix(num_unique, c->Dim(grad, 1)));
      return absl::OkStatus();
    })
    .Doc(R"doc(
The gradient summed per unique key: the transpose of EmbeddingDuplicate.

    none:  grad_unique[u] = sum_{n: inverse[n] == u} grad[n]
    other: grad_unique[u] = sum_{n: inverse[n] == u} c[n] grad[bag of n]

with the c of EmbeddingDuplicate. The sums are taken in order of n, whatever the number of threads.
A u that inverse does not name is zeros.

grad: float32 [N, D], or [B, D] with a combiner.
inverse: int32 [N], in [0, U).
num_unique: int32 scalar, U.
row_splits: for a combiner, one int64 [B + 1], as for EmbeddingDuplicate.
weights: for a combiner, none or one float32 [N].
grad_unique: float32 [U, D].
)doc");

}  // namespace sparse_emb
