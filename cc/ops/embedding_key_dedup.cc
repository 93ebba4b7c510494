#include "cc/ops/feature_attrs.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace sparse_emb {

using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

REGISTER_OP("SparseEmb>EmbeddingKeyDedup")
    .Input("keys: int64")
    .Input("feature_splits: num_splits * int64")
    .Output("unique_keys: int64")
    .Output("inverse: int32")
    .Output("counts: int32")
    .Output("table_splits: int64")
    .Attr("num_splits: int >= 0 = 0")
    .Attr("tables: list(int) = [0]")
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle keys;
      TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 1, &keys));
      KeyDedupAttrs attrs;
      TF_RETURN_IF_ERROR(attrs.Get(c, "tables"));
      TF_RETURN_IF_ERROR(attrs.CheckSplits(c, 1));
      attrs.SetUniqueOutputs(c, keys);
      return absl::OkStatus();
    })
    .Doc(R"doc(
The unique keys of a batch, in order of first occurrence.

`unique_keys[inverse[n]] == keys[n]` for every n. No keys give no unique keys. Keys of several
features can be on several tables: they are deduplicated table by table, and the unique keys of
table t stand from table_splits[t] to table_splits[t + 1] - 1.

keys: int64 [N], N < 2^31. Every int64 is a valid key; keys may repeat.
feature_splits: int64 [F + 1]: the keys of feature f are [feature_splits[f], feature_splits[f + 1]).
  From 0 to N, not descending. Without it there is one feature.
unique_keys: int64 [U], without repeats within a table.
inverse: int32 [N], the index of each key among the unique ones.
counts: int32 [U], how often each unique key occurs.
table_splits: int64 [T + 1].
tables: the number of each feature's table, in [0, F); T is the greatest and one.
)doc");

}  // namespace sparse_emb
