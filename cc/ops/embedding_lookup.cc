#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace sparse_emb {

using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

REGISTER_OP("SparseEmb>EmbeddingLookup")
    .Input("table: resource")
    .Input("keys: int64")
    .Input("anchor: float")
    .Output("rows: float")
    .Attr("insert: bool = false")
    .Attr("missing: {'initial', 'zeros'} = 'initial'")
    .SetIsStateful()
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle table, keys, anchor;
      TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 0, &table));
      TF_RETURN_IF_ERROR(c->WithRank(c->input(1), 1, &keys));
      TF_RETURN_IF_ERROR(c->WithRank(c->input(2), 2, &anchor));
      c->set_output(0, c->Matrix(c->Dim(keys, 0), c->Dim(anchor, 1)));
      return absl::OkStatus();
    })
    .Doc(R"doc(
One row per key from an embedding table.

A key that is not in the table reads as its initial row, a function of (seed, key) alone; with
`insert` it is inserted as well, without `insert` nothing changes. The gradient is
`IndexedSlices(grad, keys)`, and goes to `anchor`.

table: the table.
keys: int64 [N]. Keys may repeat; no keys give no rows. On a table with an input_dim they must be in
  [0, input_dim).
anchor: float32 [0, D], the value of the table's variable: it holds no rows, it is what gradients
  flow to, and it tells the width D.
rows: float32 [N, D], the embeddings without the optimizer's state.
insert: insert missing keys.
missing: what a missing key reads as when it is not inserted: its initial row, or zeros.
)doc");

}  // namespace sparse_emb
