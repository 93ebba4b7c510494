#include "cc/ops/feature_attrs.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace sparse_emb {

using tensorflow::shape_inference::DimensionHandle;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

REGISTER_OP("SparseEmb>EmbeddingDedupLookup")
    .Input("tables: num_tables * resource")
    .Input("keys: int64")
    .Input("feature_splits: num_splits * int64")
    .Input("anchors: num_tables * float")
    .Output("unique_keys: int64")
    .Output("inverse: int32")
    .Output("counts: int32")
    .Output("table_splits: int64")
    .Output("rows: float")
    .Attr("num_tables: int >= 1")
    .Attr("num_splits: int >= 0 = 0")
    .Attr("feature_tables: list(int) = [0]")
    .Attr("insert: bool = false")
    .Attr("missing: {'initial', 'zeros'} = 'initial'")
    .SetIsStateful()
    .SetShapeFn([](InferenceContext* c) {
      int num_tables;
      TF_RETURN_IF_ERROR(c->GetAttr("num_tables", &num_tables));
      KeyDedupAttrs attrs;
      TF_RETURN_IF_ERROR(attrs.Get(c, "feature_tables"));
      TF_RETURN_IF_ERROR(attrs.CheckNumTables(num_tables));
      ShapeHandle keys, handle, anchor;
      TF_RETURN_IF_ERROR(c->WithRank(c->input(num_tables), 1, &keys));
      TF_RETURN_IF_ERROR(attrs.CheckSplits(c, num_tables + 1));
      DimensionHandle dim = c->UnknownDim();
      for (int t = 0; t < num_tables; ++t) {
        TF_RETURN_IF_ERROR(c->WithRank(c->input(t), 0, &handle));
        TF_RETURN_IF_ERROR(
            c->WithRank(c->input(num_tables + 1 + attrs.num_splits + t), 2, &anchor));
        TF_RETURN_IF_ERROR(c->Merge(dim, c->Dim(anchor, 1), &dim));
      }
      attrs.SetUniqueOutputs(c, keys);
      c->set_output(4, c->Matrix(c->Dim(c->output(0), 0), dim));
      return absl::OkStatus();
    })
    .Doc(R"doc(
EmbeddingKeyDedup, and EmbeddingLookup of the unique keys, in one op.

It gives what the two give, on one table in less time: while one thread finds the unique keys,
others read the rows of those that it has found, unless there are so many keys that all threads
find them. (Of several tables, each has a thread for itself.) The gradient is `IndexedSlices(grad,
unique_keys)`, table by table, and goes to `anchors`.

tables: the tables.
keys: int64 [N], N < 2^31, those of one feature after those of the other. Keys may repeat; no keys
  give no rows. On a table with an input_dim they must be in [0, input_dim).
feature_splits: int64 [F + 1]: the keys of feature f are [feature_splits[f], feature_splits[f + 1]).
  From 0 to N, not descending. Without it there is one feature.
anchors: float32 [0, D] each, the values of the tables' variables: they hold no rows, they are what
  gradients flow to, and tell the width D.
unique_keys: int64 [U], without repeats within a table, in order of first occurrence.
inverse: int32 [N], the index of each key among the unique ones.
counts: int32 [U], how often each unique key occurs.
table_splits: int64 [T + 1]: the unique keys of table t are [table_splits[t], table_splits[t + 1]).
rows: float32 [U, D], the embeddings of the unique keys without the optimizer's state.
feature_tables: the number of each feature's table, in [0, T).
insert: insert missing keys.
missing: what a missing key reads as when it is not inserted: its initial row, or zeros.
)doc");

}  // namespace sparse_emb
