// Tables as blocks of bytes.
#include "tensorflow/core/framework/common_shape_fns.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace sparse_emb {

using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ScalarShape;
using tensorflow::shape_inference::ShapeHandle;

REGISTER_OP("SparseEmb>EmbeddingTableStartSave")
    .Input("table: resource")
    .Output("save: resource")
    .Attr("block_bytes: int >= 1")
    .SetIsStateful()
    .SetShapeFn(ScalarShape)
    .Doc(R"doc(
Begins to save an embedding table, as it is at one moment, to whoever asks for its blocks.

The blocks are the bytes of the file that EmbeddingTableSave writes. A thread gathers them; the table
is locked as by any save until the last is taken or `save` goes.

save: for EmbeddingTableNextBlock. The save ends with the last tensor of this handle.
block_bytes: the size of all blocks but the last. A few are in memory at a time.
)doc");

REGISTER_OP("SparseEmb>EmbeddingTableNextBlock")
    .Input("save: resource")
    .Output("block: uint8")
    .SetIsStateful()
    .SetShapeFn([](InferenceContext* c) {
      c->set_output(0, c->Vector(InferenceContext::kUnknownDim));
      return absl::OkStatus();
    })
    .Doc(R"doc(
Waits for the next block of a save that EmbeddingTableStartSave began.

block: empty after the last.
)doc");

REGISTER_OP("SparseEmb>EmbeddingTableStartLoad")
    .Input("table: resource")
    .Input("source: string")
    .Output("load: resource")
    .Attr("only_check: bool = false")
    .SetIsStateful()
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle scalar;
      TF_RETURN_IF_ERROR(c->WithRank(c->input(1), 0, &scalar));
      return ScalarShape(c);
    })
    .Doc(R"doc(
Begins to replace all rows of an embedding table by those in blocks, which EmbeddingTableGiveBlock gives.

A thread reads them; the table is locked as by EmbeddingTableLoad, and changes when all have been read
and checked.

source: string scalar, what errors call the place that the blocks come from.
load: The load ends with the last tensor of this handle, if it is not finished without changing the
  table.
only_check: look at the beginning alone, whether the table could take it, and change nothing.
)doc");

REGISTER_OP("SparseEmb>EmbeddingTableGiveBlock")
    .Input("load: resource")
    .Input("block: uint8")
    .Output("wanted: bool")
    .SetIsStateful()
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle vector;
      TF_RETURN_IF_ERROR(c->WithRank(c->input(1), 1, &vector));
      return ScalarShape(c);
    })
    .Doc(R"doc(
Gives the next bytes to a load that EmbeddingTableStartLoad began, and waits while it has enough.

block: uint8 [n], of any size. Not copied: it must not change before the load is finished.
wanted: bool scalar, false if the load has ended; EmbeddingTableFinishLoad says how.
)doc");

REGISTER_OP("SparseEmb>EmbeddingTableFinishLoad")
    .Input("load: resource")
    .Output("report: string")
    .SetIsStateful()
    .SetShapeFn(ScalarShape)
    .Doc(R"doc(
Waits for the end of a load that has been given all blocks, or wants no more.

report: as that of EmbeddingTableLoad.
)doc");

}  // namespace sparse_emb
