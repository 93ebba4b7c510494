// The table itself: creation, and what is done to it outside a training step.
#include "tensorflow/core/framework/common_shape_fns.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace sparse_emb {

using tensorflow::shape_inference::DimensionHandle;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ScalarShape;
using tensorflow::shape_inference::ShapeHandle;

REGISTER_OP("SparseEmb>EmbeddingTable")
    .Output("table: resource")
    .Attr("table_name: string")
    .Attr("dim: int")
    .Attr("storage: string = 'slab'")
    .Attr("input_dim: int = -1")
    .Attr("max_rows: int = -1")
    .Attr("initializer: string = 'uniform'")
    .Attr("initializer_a: float = -0.05")
    .Attr("initializer_b: float = 0.05")
    .Attr("seed: int = 0")
    .SetIsStateful()
    .SetShapeFn(ScalarShape)
    .Doc(R"doc(
A new, empty embedding table, which lives as long as its handle.

table: the handle.
table_name: for error messages; it is no identity, two tables may share a name.
dim: D, the width of an embedding.
storage: unordered_map, open_addressing, chained, slab or index (which needs an input_dim).
input_dim: keys must be in [0, input_dim); -1: every int64 is a key.
max_rows: the table never holds more rows; -1: no bound.
initializer: of rows: constant (value a), uniform (from a to b), normal or truncated_normal (mean a,
  standard deviation b).
seed: of the initial rows.
)doc");

REGISTER_OP("SparseEmb>EmbeddingTableBind")
    .Input("table: resource")
    .Input("initial_state: float")
    .Output("binding: int64")
    .Attr("rule: string")
    .SetIsStateful()
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle state;
      TF_RETURN_IF_ERROR(c->WithRank(c->input(1), 1, &state));
      return ScalarShape(c);
    })
    .Doc(R"doc(
Binds a table to an update rule: every row gets room for the rule's state, set to its initial value.

table: the table.
initial_state: float32 [S], where S is the rule's state width for the table's dim.
binding: int64 scalar, which names this binding to EmbeddingUpdate. The newest binding wins.
rule: sgd, row_wise_adagrad or row_wise_adam.
)doc");

REGISTER_OP("SparseEmb>EmbeddingTableSize")
    .Input("table: resource")
    .Output("size: int64")
    .SetIsStateful()
    .SetShapeFn(ScalarShape)
    .Doc(R"doc(
The number of rows of an embedding table.
)doc");

REGISTER_OP("SparseEmb>EmbeddingTableMemoryBytes")
    .Input("table: resource")
    .Output("bytes: int64")
    .SetIsStateful()
    .SetShapeFn(ScalarShape)
    .Doc(R"doc(
The bytes of an embedding table: rows, optimizer state and index.
)doc");

REGISTER_OP("SparseEmb>EmbeddingTableContains")
    .Input("table: resource")
    .Input("keys: int64")
    .Output("present: bool")
    .SetIsStateful()
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle keys;
      TF_RETURN_IF_ERROR(c->WithRank(c->input(1), 1, &keys));
      c->set_output(0, keys);
      return absl::OkStatus();
    })
    .Doc(R"doc(
Whether each key is in the table.

keys: int64 [N].
present: bool [N].
)doc");

REGISTER_OP("SparseEmb>EmbeddingTableUpsert")
    .Input("table: resource")
    .Input("keys: int64")
    .Input("rows: float")
    .SetIsStateful()
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle keys, rows;
      DimensionHandle n;
      TF_RETURN_IF_ERROR(c->WithRank(c->input(1), 1, &keys));
      TF_RETURN_IF_ERROR(c->WithRank(c->input(2), 2, &rows));
      return c->Merge(c->Dim(keys, 0), c->Dim(rows, 0), &n);
    })
    .Doc(R"doc(
Sets the embeddings of keys. New rows get the initial optimizer state, rows that exist keep theirs.

keys: int64 [N]; the last of a repeated key wins.
rows: float32 [N, D].
)doc");

REGISTER_OP("SparseEmb>EmbeddingTableRemove")
    .Input("table: resource")
    .Input("keys: int64")
    .SetIsStateful()
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle keys;
      return c->WithRank(c->input(1), 1, &keys);
    })
    .Doc(R"doc(
Forgets keys, with their optimizer state. Keys that are not in the table are passed over.

keys: int64 [N].
)doc");

REGISTER_OP("SparseEmb>EmbeddingTableClear")
    .Input("table: resource")
    .SetIsStateful()
    .SetShapeFn(tensorflow::shape_inference::NoOutputs)
    .Doc(R"doc(
Forgets all keys. The table keeps its binding to an update rule.
)doc");

REGISTER_OP("SparseEmb>EmbeddingTableExport")
    .Input("table: resource")
    .Output("keys: int64")
    .Output("rows: float")
    .Attr("with_state: bool = false")
    .SetIsStateful()
    .SetShapeFn([](InferenceContext* c) {
      const DimensionHandle size = c->UnknownDim();
      c->set_output(0, c->Vector(size));
      c->set_output(1, c->Matrix(size, c->UnknownDim()));
      return absl::OkStatus();
    })
    .Doc(R"doc(
All keys and rows of an embedding table, in the storage's order.

keys: int64 [V].
rows: float32 [V, D], or [V, D + S] with the optimizer's state.
)doc");

}  // namespace sparse_emb
