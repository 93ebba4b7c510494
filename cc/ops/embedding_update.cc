#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cc/ops/feature_attrs.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace sparse_emb {

using tensorflow::shape_inference::DimensionHandle;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

namespace {

// keys [U], grads [U, D] and, of several tables, one table_splits [T + 1].
absl::Status CheckKeysAndGrads(InferenceContext* c, int num_tables, int num_splits,
                               int keys_input) {
  ShapeHandle keys, grads, splits;
  DimensionHandle merged;
  TF_RETURN_IF_ERROR(CheckNumTableSplits(num_tables, num_splits));
  TF_RETURN_IF_ERROR(c->WithRank(c->input(keys_input), 1, &keys));
  if (num_splits == 1) {
    TF_RETURN_IF_ERROR(c->WithRank(c->input(keys_input + 1), 1, &splits));
    TF_RETURN_IF_ERROR(c->WithValue(c->Dim(splits, 0), num_tables + 1, &merged));
  }
  TF_RETURN_IF_ERROR(c->WithRank(c->input(keys_input + num_splits + 1), 2, &grads));
  return c->Merge(c->Dim(keys, 0), c->Dim(grads, 0), &merged);
}

}  // namespace

REGISTER_OP("SparseEmb>EmbeddingUpdate")
    .Input("tables: num_tables * resource")
    .Input("keys: int64")
    .Input("table_splits: num_splits * int64")
    .Input("grads: float")
    .Input("hypers: float")
    .Input("step: int64")
    .Attr("num_tables: int >= 1")
    .Attr("num_splits: int >= 0 = 0")
    .Attr("rule: string")
    .Attr("bindings: list(int) = []")
    .Attr("keys_differ: bool = false")
    .Attr("check_finite: bool = true")
    .SetIsStateful()
    .SetShapeFn([](InferenceContext* c) {
      int num_tables, num_splits;
      std::vector<int64_t> bindings;
      TF_RETURN_IF_ERROR(c->GetAttr("num_tables", &num_tables));
      TF_RETURN_IF_ERROR(c->GetAttr("num_splits", &num_splits));
      TF_RETURN_IF_ERROR(c->GetAttr("bindings", &bindings));
      if (!bindings.empty() && static_cast<int>(bindings.size()) != num_tables) {
        return absl::InvalidArgumentError(absl::StrCat(
            "bindings must be one for each of ", num_tables, " tables, got ", bindings.size()));
      }
      ShapeHandle shape;
      for (int t = 0; t < num_tables; ++t) {
        TF_RETURN_IF_ERROR(c->WithRank(c->input(t), 0, &shape));
      }
      TF_RETURN_IF_ERROR(CheckKeysAndGrads(c, num_tables, num_splits, num_tables));
      TF_RETURN_IF_ERROR(c->WithRank(c->input(num_tables + num_splits + 2), 1, &shape));
      return c->WithRank(c->input(num_tables + num_splits + 3), 0, &shape);
    })
    .Doc(R"doc(
Applies an update rule to rows of an embedding table, or of several of one width, in place.

A key that is not in the table is created from its initial row and state, then updated. Rows that no
key names do not change. An error leaves all tables as they were (but if memory runs out in one of
several, those before it have been updated). No keys change nothing.

tables: the tables, bound to the rule by EmbeddingTableBind.
keys: int64 [U], those of one table after those of the other; no key may come twice in a table.
table_splits: int64 [T + 1]: the keys of table t are [table_splits[t], table_splits[t + 1]). One table
  has none.
grads: float32 [U, D], the summed gradients.
hypers: float32, the rule's hyper-parameters:
  sgd: learning_rate, weight_decay;
  momentum: learning_rate, momentum, nesterov (0 or 1), weight_decay;
  adagrad, row_wise_adagrad: learning_rate, epsilon, weight_decay;
  adagrad_decay: learning_rate, decay_step, decay_rate, initial_accumulator_value, weight_decay;
  adam, adam_amsgrad, row_wise_adam: learning_rate, beta_1, beta_2, epsilon, weight_decay;
  ftrl: learning_rate, learning_rate_power, l1_regularization_strength, l2_regularization_strength,
    l2_shrinkage_regularization_strength, beta, weight_decay;
  rmsprop, rmsprop_momentum, rmsprop_centered, rmsprop_centered_momentum: learning_rate, rho, momentum,
    epsilon, weight_decay.
step: int64 scalar, the optimizer's 1-based step.
rule: one of those.
bindings: what EmbeddingTableBind returned for each table; an update from a binding that is no longer
  the table's is an error. 0, or no list, accepts any binding of the rule.
keys_differ: the caller's word that no key comes twice. Otherwise the op looks.
check_finite: refuse gradients that are not finite.
)doc");

REGISTER_OP("SparseEmb>EmbeddingCheckFinite")
    .Input("keys: int64")
    .Input("table_splits: num_splits * int64")
    .Input("grads: float")
    .Attr("num_splits: int >= 0 = 0")
    .Attr("table_names: list(string)")
    .SetIsStateful()
    .SetShapeFn([](InferenceContext* c) {
      int num_splits;
      std::vector<std::string> table_names;
      TF_RETURN_IF_ERROR(c->GetAttr("num_splits", &num_splits));
      TF_RETURN_IF_ERROR(c->GetAttr("table_names", &table_names));
      return CheckKeysAndGrads(c, table_names.size(), num_splits, 0);
    })
    .Doc(R"doc(
An error that names the table and the key unless all gradients are finite.

keys: int64 [U], those of one table after those of the other.
table_splits: int64 [T + 1]: the keys of table t are [table_splits[t], table_splits[t + 1]). One table
  has none.
grads: float32 [U, D].
table_names: of the T tables.
)doc");

}  // namespace sparse_emb
