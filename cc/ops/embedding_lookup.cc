#include "absl/strings/str_cat.h"
#include "cc/ops/feature_attrs.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace sparse_emb {

using tensorflow::shape_inference::DimensionHandle;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

REGISTER_OP("SparseEmb>EmbeddingLookup")
    .Input("tables: num_tables * resource")
    .Input("keys: int64")
    .Input("table_splits: num_splits * int64")
    .Input("anchors: num_tables * float")
    .Output("rows: float")
    .Attr("num_tables: int >= 1")
    .Attr("num_splits: int >= 0 = 0")
    .Attr("insert: bool = false")
    .Attr("missing: {'initial', 'zeros'} = 'initial'")
    .Attr("keys_differ: bool = false")
    .SetIsStateful()
    .SetShapeFn([](InferenceContext* c) {
      int num_tables, num_splits;
      TF_RETURN_IF_ERROR(c->GetAttr("num_tables", &num_tables));
      TF_RETURN_IF_ERROR(c->GetAttr("num_splits", &num_splits));
      TF_RETURN_IF_ERROR(CheckNumTableSplits(num_tables, num_splits));
      ShapeHandle handle, keys, anchor;
      TF_RETURN_IF_ERROR(c->WithRank(c->input(num_tables), 1, &keys));
      if (num_splits == 1) {
        ShapeHandle splits;
        DimensionHandle size;
        TF_RETURN_IF_ERROR(c->WithRank(c->input(num_tables + 1), 1, &splits));
        TF_RETURN_IF_ERROR(c->WithValue(c->Dim(splits, 0), num_tables + 1, &size));
      }
      DimensionHandle dim = c->UnknownDim();
      for (int t = 0; t < num_tables; ++t) {
        TF_RETURN_IF_ERROR(c->WithRank(c->input(t), 0, &handle));
        TF_RETURN_IF_ERROR(c->WithRank(c->input(num_tables + 1 + num_splits + t), 2, &anchor));
        TF_RETURN_IF_ERROR(c->Merge(dim, c->Dim(anchor, 1), &dim));
      }
      c->set_output(0, c->Matrix(c->Dim(keys, 0), dim));
      return absl::OkStatus();
    })
    .Doc(R"doc(
One row per key from an embedding table, or from several of one width.

A key that is not in its table reads as its initial row, a function of (seed, key) alone; with
`insert` it is inserted as well, without `insert` nothing changes. Rows beyond a table's max_norm
are scaled, with `insert` in the table, without in the output alone. The gradient is
`IndexedSlices(grad, keys)`, table by table, and goes to `anchors`.

Keys, and the room for new ones, are checked for all tables before anything changes. (Of several
tables, keys that repeat count each time for that.)

tables: the tables.
keys: int64 [N], those of one table after those of the other. Keys may repeat; no keys give no rows.
  On a table with an input_dim they must be in [0, input_dim).
table_splits: int64 [T + 1]: the keys of table t are [table_splits[t], table_splits[t + 1]). From 0
  to N, not descending. One table has none.
anchors: float32 [0, D] each, the values of the tables' variables: they hold no rows, they are what
  gradients flow to, and tell the width D.
rows: float32 [N, D], the embeddings without the optimizer's state.
insert: insert missing keys.
missing: what a missing key reads as when it is not inserted: its initial row, or zeros.
keys_differ: the caller's word that no key of a table comes twice, which spares the optimizer the
  look. It changes nothing here.
)doc");

}  // namespace sparse_emb
