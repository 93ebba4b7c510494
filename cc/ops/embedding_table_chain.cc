// Incremental saves of tables: a whole one and the increments that follow it.
#include "tensorflow/core/framework/common_shape_fns.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace sparse_emb {

using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

// Inputs from the second to number `end` are scalars, as are all outputs.
absl::Status Scalars(InferenceContext* c, int end) {
  ShapeHandle scalar;
  for (int i = 1; i < end; ++i) TF_RETURN_IF_ERROR(c->WithRank(c->input(i), 0, &scalar));
  for (int i = 0; i < c->num_outputs(); ++i) c->set_output(i, c->Scalar());
  return absl::OkStatus();
}

absl::Status AllInputsScalars(InferenceContext* c) { return Scalars(c, c->num_inputs()); }

// paths and saves, then scalars.
absl::Status ChainsShapes(InferenceContext* c) {
  ShapeHandle paths, saves, scalar;
  TF_RETURN_IF_ERROR(c->WithRank(c->input(1), 2, &paths));
  TF_RETURN_IF_ERROR(c->WithRank(c->input(2), 2, &saves));
  TF_RETURN_IF_ERROR(c->Merge(paths, saves, &paths));
  if (c->num_inputs() > 3) TF_RETURN_IF_ERROR(c->WithRank(c->input(3), 0, &scalar));
  return Scalars(c, 1);
}

REGISTER_OP("SparseEmb>EmbeddingTableOpenLog")
    .Input("table: resource")
    .Output("log: int64")
    .SetIsStateful()
    .SetShapeFn(AllInputsScalars)
    .Doc(R"doc(
Begins to log which rows of an embedding table change.

log: int64 scalar, a number from 1 on. At first it says that everything has changed.
)doc");

REGISTER_OP("SparseEmb>EmbeddingTableCloseLog")
    .Input("table: resource")
    .Input("log: int64")
    .SetIsStateful()
    .SetShapeFn(AllInputsScalars)
    .Doc(R"doc(
Ends a log; one that is not there is passed over.

log: int64 scalar.
)doc");

REGISTER_OP("SparseEmb>EmbeddingTableChanges")
    .Input("table: resource")
    .Input("log: int64")
    .Output("everything: bool")
    .Output("keys: int64")
    .SetIsStateful()
    .SetShapeFn(AllInputsScalars)
    .Doc(R"doc(
What has changed since the last confirmed save of a log.

log: int64 scalar.
everything: bool scalar, whether the next save must be whole: there was none, or the table has been
  cleared, loaded, assigned or bound anew.
keys: int64 scalar, otherwise the number of keys whose rows have changed, or a few more.
)doc");

REGISTER_OP("SparseEmb>EmbeddingTableSaveInChain")
    .Input("table: resource")
    .Input("path: string")
    .Input("log: int64")
    .Input("save: string")
    .Attr("increment: bool")
    .Attr("durable: bool = false")
    .SetIsStateful()
    .SetShapeFn(AllInputsScalars)
    .Doc(R"doc(
Writes an embedding table, or what has changed in it, as it is at one moment, to a file.

The file appears whole under its name, or on an error not at all. Until EmbeddingTableConfirmSave, the next save of the log has all that this one had.

path: string scalar, on a local file system.
log: int64 scalar.
save: string scalar, not empty, which tells this save from all others.
increment: only the rows that have changed since the last confirmed save of the log, and the keys
  that were removed; an error if everything has changed.
durable: return when the file is on the disk.
)doc");

REGISTER_OP("SparseEmb>EmbeddingTableConfirmSave")
    .Input("table: resource")
    .Input("log: int64")
    .SetIsStateful()
    .SetShapeFn(AllInputsScalars)
    .Doc(R"doc(
Says that the last EmbeddingTableSaveInChain of a log is safe: the next has what changed after it.

log: int64 scalar.
)doc");

REGISTER_OP("SparseEmb>EmbeddingTableCheckChains")
    .Input("table: resource")
    .Input("paths: string")
    .Input("saves: string")
    .Output("whole: int64")
    .Output("problem: string")
    .Attr("server: int >= 0 = 0")
    .Attr("num_servers: int >= 1 = 1")
    .SetIsStateful()
    .SetShapeFn(ChainsShapes)
    .Doc(R"doc(
Reads all that EmbeddingTableLoadChains would read, and changes nothing.

An error if the table could not take the files though they are whole: another width, keys out of
range, more rows than it may have.

paths, saves, server, num_servers: as those of EmbeddingTableLoadChains.
whole: int64 scalar, how many of the P files of every chain are whole, from the first on.
problem: string scalar, what the matter is with the next of one; empty if there is none.
)doc");

REGISTER_OP("SparseEmb>EmbeddingTableLoadChains")
    .Input("table: resource")
    .Input("paths: string")
    .Input("saves: string")
    .Input("log: int64")
    .Output("report: string")
    .Attr("server: int >= 0 = 0")
    .Attr("num_servers: int >= 1 = 1")
    .SetIsStateful()
    .SetShapeFn(ChainsShapes)
    .Doc(R"doc(
Replaces all rows of an embedding table by those of a saved table, or of them this server's own.

All files that may have such rows are read and checked before the table changes.

paths: string [S, P], the files of a table that was spread over S > 0 servers (1: or was not): of each
  a whole one and the P - 1 increments that follow it.
saves: string [S, P], the names of the saves that the files must be of.
log: int64 scalar. If the rows are then as this server saved them, nothing has changed for this log.
  0: none.
report: as that of EmbeddingTableLoad, of the first files that were read.
server, num_servers: only keys are kept that EmbeddingPartition gives to this server.
)doc");

}  // namespace sparse_emb
