#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace sparse_emb {

using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

REGISTER_OP("SparseEmb>EmbeddingKeyDedup")
    .Input("keys: int64")
    .Output("unique_keys: int64")
    .Output("inverse: int32")
    .Output("counts: int32")
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle keys;
      TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 1, &keys));
      const ShapeHandle unique = c->Vector(c->UnknownDim());
      c->set_output(0, unique);
      c->set_output(1, keys);
      c->set_output(2, unique);
      return absl::OkStatus();
    })
    .Doc(R"doc(
The unique keys of a batch, in order of first occurrence.

`unique_keys[inverse[n]] == keys[n]` for every n. No keys give no unique keys.

keys: int64 [N], N < 2^31. Every int64 is a valid key; keys may repeat.
unique_keys: int64 [U], without repeats.
inverse: int32 [N], the index of each key among the unique ones.
counts: int32 [U], how often each unique key occurs.
)doc");

}  // namespace sparse_emb
