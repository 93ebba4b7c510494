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
    .Attr("num_features: int >= 1 = 1")
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle grad, scalar;
      int num_features;
      TF_RETURN_IF_ERROR(c->GetAttr("num_features", &num_features));
      TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 2, &grad));
      TF_RETURN_IF_ERROR(c->WithRank(c->input(2), 0, &scalar));
      DimensionHandle combined, num_unique, dim;
      TF_RETURN_IF_ERROR(GetCombinedDim(c, 1, 3, &combined));
      TF_RETURN_IF_ERROR(c->Merge(c->Dim(grad, 0), combined, &combined));
      TF_RETURN_IF_ERROR(c->MakeDimForScalarInput(2, &num_unique));
      TF_RETURN_IF_ERROR(c->Divide(c->Dim(grad, 1), num_features, /*evenly_divisible=*/true, &dim));
      c->set_output(0, c->Matrix(num_unique, dim));
      return absl::OkStatus();
    })
    .Doc(R"doc(
The gradient summed per unique key: the transpose of EmbeddingDuplicate.

    none:  grad_unique[u] = sum_{n: inverse[n] == u} grad_n
    other: grad_unique[u] = sum_{n: inverse[n] == u} c[n] grad_b,  n in bag b

with the c of EmbeddingDuplicate; grad_n and grad_b are grad[n] and grad[b], or their parts of grad
where features stand side by side. The sums are taken in order of n, whatever the number of threads.
A u that inverse does not name is zeros.

grad: float32 [N / F, F D], or [B / F, F D] with a combiner.
inverse: int32 [N], in [0, U).
num_unique: int32 scalar, U.
row_splits: for a combiner, one int64 [B + 1], as for EmbeddingDuplicate.
weights: for a combiner, none or one float32 [N].
num_features: F, as for EmbeddingDuplicate.
grad_unique: float32 [U, D].
)doc");

REGISTER_OP("SparseEmb>EmbeddingGradReduceByKey")
    .Input("keys: num_tables * int64")
    .Input("grads: num_tables * float")
    .Output("unique_keys: int64")
    .Output("table_splits: int64")
    .Output("grad_unique: float")
    .Attr("num_tables: int >= 1")
    .SetShapeFn([](InferenceContext* c) {
      int num_tables;
      TF_RETURN_IF_ERROR(c->GetAttr("num_tables", &num_tables));
      DimensionHandle dim = c->UnknownDim();
      for (int t = 0; t < num_tables; ++t) {
        ShapeHandle keys, grads;
        DimensionHandle n;
        TF_RETURN_IF_ERROR(c->WithRank(c->input(t), 1, &keys));
        TF_RETURN_IF_ERROR(c->WithRank(c->input(num_tables + t), 2, &grads));
        TF_RETURN_IF_ERROR(c->Merge(c->Dim(keys, 0), c->Dim(grads, 0), &n));
        TF_RETURN_IF_ERROR(c->Merge(dim, c->Dim(grads, 1), &dim));
      }
      const DimensionHandle unique = c->UnknownDim();
      c->set_output(0, c->Vector(unique));
      c->set_output(1, c->Vector(num_tables + 1));
      c->set_output(2, c->Matrix(unique, dim));
      return absl::OkStatus();
    })
    .Doc(R"doc(
The gradients of tables of one width summed per unique key, table by table.

Sums are taken in order of occurrence, whatever the number of threads.

keys: for each table int64 [N]; keys may repeat.
grads: for each table float32 [N, D].
unique_keys: int64 [U], in order of first occurrence, those of one table after those of the other.
table_splits: int64 [T + 1]: the unique keys of table t are [table_splits[t], table_splits[t + 1]).
grad_unique: float32 [U, D].
)doc");

}  // namespace sparse_emb
