#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace sparse_emb {

using tensorflow::shape_inference::DimensionHandle;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

namespace {

// keys [U] and grads [U, D].
absl::Status CheckKeysAndGrads(InferenceContext* c, int keys_input, int grads_input) {
  ShapeHandle keys, grads;
  DimensionHandle unique;
  TF_RETURN_IF_ERROR(c->WithRank(c->input(keys_input), 1, &keys));
  TF_RETURN_IF_ERROR(c->WithRank(c->input(grads_input), 2, &grads));
  return c->Merge(c->Dim(keys, 0), c->Dim(grads, 0), &unique);
}

}  // namespace

REGISTER_OP("SparseEmb>EmbeddingUpdate")
    .Input("table: resource")
    .Input("keys: int64")
    .Input("grads: float")
    .Input("hypers: float")
    .Input("step: int64")
    .Attr("rule: string")
    .Attr("binding: int = 0")
    .Attr("keys_differ: bool = false")
    .Attr("check_finite: bool = true")
    .SetIsStateful()
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle shape;
      TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 0, &shape));
      TF_RETURN_IF_ERROR(CheckKeysAndGrads(c, 1, 2));
      TF_RETURN_IF_ERROR(c->WithRank(c->input(3), 1, &shape));
      return c->WithRank(c->input(4), 0, &shape);
    })
    .Doc(R"doc(
Applies an update rule to rows of an embedding table, in place.

A key that is not in the table is created from its initial row and state, then updated. Rows that no
key names do not change. An error leaves the table as it was. No keys change nothing.

table: the table, bound to the rule by EmbeddingTableBind.
keys: int64 [U]; no key may come twice.
grads: float32 [U, D], the summed gradients.
hypers: float32, the rule's hyper-parameters:
  sgd: learning_rate, weight_decay;
  row_wise_adagrad: learning_rate, epsilon, weight_decay;
  row_wise_adam: learning_rate, beta_1, beta_2, epsilon, weight_decay.
step: int64 scalar, the optimizer's 1-based step.
rule: sgd, row_wise_adagrad or row_wise_adam.
binding: what EmbeddingTableBind returned; an update from a binding that is no longer the table's is
  an error. 0 accepts any binding of the rule.
keys_differ: the caller's word that no key comes twice. Otherwise the op looks.
check_finite: refuse gradients that are not finite.
)doc");

REGISTER_OP("SparseEmb>EmbeddingCheckFinite")
    .Input("keys: int64")
    .Input("grads: float")
    .Attr("table_name: string")
    .SetIsStateful()
    .SetShapeFn([](InferenceContext* c) { return CheckKeysAndGrads(c, 0, 1); })
    .Doc(R"doc(
An error that names the table and the key unless all gradients are finite.

keys: int64 [U].
grads: float32 [U, D].
)doc");

}  // namespace sparse_emb
