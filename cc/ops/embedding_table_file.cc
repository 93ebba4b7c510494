// Tables to files and back: the package's own, and TensorFlow's checkpoints.
#include "tensorflow/core/framework/common_shape_fns.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace sparse_emb {

using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

// Inputs from the second on are scalars, as are all outputs.
absl::Status AllScalars(InferenceContext* c) {
  ShapeHandle scalar;
  for (int i = 1; i < c->num_inputs(); ++i) {
    TF_RETURN_IF_ERROR(c->WithRank(c->input(i), 0, &scalar));
  }
  for (int i = 0; i < c->num_outputs(); ++i) c->set_output(i, c->Scalar());
  return absl::OkStatus();
}

REGISTER_OP("SparseEmb>EmbeddingTableSave")
    .Input("table: resource")
    .Input("path: string")
    .Attr("with_state: bool = true")
    .Attr("durable: bool = true")
    .SetIsStateful()
    .SetShapeFn(AllScalars)
    .Doc(R"doc(
Writes an embedding table, as it is at one moment, to a file of the package's own format.

The file appears whole under its name, or on an error not at all. What is at the path and is no
regular file (a pipe) is written in place.

path: string scalar, on a local file system.
with_state: with the optimizer's state.
durable: wait until the disk has it.
)doc");

REGISTER_OP("SparseEmb>EmbeddingTableLoad")
    .Input("table: resource")
    .Input("path: string")
    .Input("source: string")
    .Output("report: string")
    .Attr("only_check: bool = false")
    .SetIsStateful()
    .SetShapeFn(AllScalars)
    .Doc(R"doc(
Replaces all rows of an embedding table by those of a file that EmbeddingTableSave wrote.

All of the file is read and checked before the table changes.

path: string scalar.
source: string scalar, what errors call the file; empty: its path.
report: string scalar, JSON: what the file says of its table; bound_rule, the update rule that the
  table is bound to; kept_state, whether its rows have the state that came with them; other_initial,
  whether the table's initializer is another than that of the file.
only_check: look at the beginning of the file alone, whether the table could take it, and change
  nothing.
)doc");

REGISTER_OP("SparseEmb>EmbeddingTableSaveBundle")
    .Input("table: resource")
    .Input("prefix: string")
    .Input("key: string")
    .SetIsStateful()
    .SetShapeFn(AllScalars)
    .Doc(R"doc(
Writes an embedding table, as it is at one moment, to a file of TensorFlow's checkpoint format.

The tensors are <key>/table, a string that describes it, and, if there are rows, <key>/keys int64 [V],
<key>/rows float32 [V, D], and <key>/state float32 [V, S'], the counts and the optimizer's state.

prefix: string scalar, of the files.
key: string scalar.
)doc");

REGISTER_OP("SparseEmb>EmbeddingTableLoadBundle")
    .Input("table: resource")
    .Input("prefix: string")
    .Input("key: string")
    .Output("report: string")
    .SetIsStateful()
    .SetShapeFn(AllScalars)
    .Doc(R"doc(
Replaces all rows of an embedding table by what EmbeddingTableSaveBundle wrote.

All of it is read and checked before the table changes.

prefix: string scalar, of the files.
key: string scalar.
report: as that of EmbeddingTableLoad.
)doc");

}  // namespace sparse_emb
