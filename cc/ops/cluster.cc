// What a cluster's tasks tell of themselves.
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace sparse_emb {

using tensorflow::shape_inference::InferenceContext;

REGISTER_OP("SparseEmb>LibraryVersion")
    .Output("version: string")
    .SetIsStateful()
    .SetShapeFn([](InferenceContext* c) {
      c->set_output(0, c->Scalar());
      return absl::OkStatus();
    })
    .Doc(R"doc(
The version of this op library and of the TensorFlow that it was built for, where the op runs.

version: scalar, such as "1.2.3 for TensorFlow 2.21.0".
)doc");

REGISTER_OP("SparseEmb>TaskIndex")
    .Output("index: int64")
    .SetIsStateful()
    .SetShapeFn([](InferenceContext* c) {
      c->set_output(0, c->Scalar());
      return absl::OkStatus();
    })
    .Doc(R"doc(
The number of the task that the op runs on, among those of its job: which worker this is.

index: scalar, 0 outside of a cluster.
)doc");

}  // namespace sparse_emb
