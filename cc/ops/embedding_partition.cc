#include "cc/ops/feature_attrs.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace sparse_emb {

using tensorflow::shape_inference::DimensionHandle;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

namespace {

// table_splits, if there are any, from input `first` on.
absl::Status CheckSplitsShape(InferenceContext* c, int first) {
  int num_tables, num_splits;
  TF_RETURN_IF_ERROR(c->GetAttr("num_tables", &num_tables));
  TF_RETURN_IF_ERROR(c->GetAttr("num_splits", &num_splits));
  TF_RETURN_IF_ERROR(CheckNumTableSplits(num_tables, num_splits));
  if (num_splits == 0) return absl::OkStatus();
  ShapeHandle splits;
  DimensionHandle size;
  TF_RETURN_IF_ERROR(c->WithRank(c->input(first), 1, &splits));
  return c->WithValue(c->Dim(splits, 0), num_tables + 1, &size);
}

}  // namespace

REGISTER_OP("SparseEmb>EmbeddingPartition")
    .Input("keys: int64")
    .Input("table_splits: num_splits * int64")
    .Output("server_keys: num_servers * int64")
    .Output("server_splits: num_servers * int64")
    .Output("positions: num_servers * int32")
    .Attr("num_servers: int >= 1")
    .Attr("num_tables: int >= 1 = 1")
    .Attr("num_splits: int >= 0 = 0")
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle keys;
      TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 1, &keys));
      TF_RETURN_IF_ERROR(CheckSplitsShape(c, 1));
      int num_servers, num_tables;
      TF_RETURN_IF_ERROR(c->GetAttr("num_servers", &num_servers));
      TF_RETURN_IF_ERROR(c->GetAttr("num_tables", &num_tables));
      for (int s = 0; s < num_servers; ++s) {
        const ShapeHandle part = c->Vector(c->UnknownDim());
        c->set_output(s, part);
        c->set_output(num_servers + s, c->Vector(num_tables + 1));
        c->set_output(2 * num_servers + s, part);
      }
      return absl::OkStatus();
    })
    .Doc(R"doc(
The keys of tables that are spread over servers, server by server.

A key's server is a function of the key and the number of servers alone, a hash, so that ranges of
keys that come often spread. `server_keys[s][i] == keys[positions[s][i]]`; keys keep their order,
and stay table by table. Repeated keys stay repeated; no keys give each server none.

keys: int64 [N], N < 2^31, those of one table after those of the other.
table_splits: int64 [T + 1]: the keys of table t are [table_splits[t], table_splits[t + 1]). From 0
  to N, not descending. One table has none.
server_keys: int64 [N_s] each.
server_splits: int64 [T + 1] each: where the keys of each table stand among a server's.
positions: int32 [N_s] each, where a server's keys stand among all.
)doc");

REGISTER_OP("SparseEmb>EmbeddingPartitionRows")
    .Input("rows: float")
    .Input("positions: num_servers * int32")
    .Output("parts: num_servers * float")
    .Attr("num_servers: int >= 1")
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle rows, positions;
      TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 2, &rows));
      for (int s = 0; s + 1 < c->num_inputs(); ++s) {
        TF_RETURN_IF_ERROR(c->WithRank(c->input(s + 1), 1, &positions));
        c->set_output(s, c->Matrix(c->Dim(positions, 0), c->Dim(rows, 1)));
      }
      return absl::OkStatus();
    })
    .Doc(R"doc(
Rows server by server: `parts[s][i] == rows[positions[s][i]]`.

rows: float32 [N, D].
positions: int32 [N_s] each, from EmbeddingPartition: together each of [0, N) once.
parts: float32 [N_s, D] each.
)doc");

REGISTER_OP("SparseEmb>EmbeddingStitchRows")
    .Input("parts: num_servers * float")
    .Input("positions: num_servers * int32")
    .Input("keys: int64")
    .Input("table_splits: num_splits * int64")
    .Input("anchors: num_tables * float")
    .Output("rows: float")
    .Attr("num_servers: int >= 1")
    .Attr("num_tables: int >= 1")
    .Attr("num_splits: int >= 0 = 0")
    .Attr("keys_differ: bool = false")
    .SetShapeFn([](InferenceContext* c) {
      int num_servers;
      TF_RETURN_IF_ERROR(c->GetAttr("num_servers", &num_servers));
      ShapeHandle part, positions, keys;
      DimensionHandle dim = c->UnknownDim(), size;
      for (int s = 0; s < num_servers; ++s) {
        TF_RETURN_IF_ERROR(c->WithRank(c->input(s), 2, &part));
        TF_RETURN_IF_ERROR(c->WithRank(c->input(num_servers + s), 1, &positions));
        TF_RETURN_IF_ERROR(c->Merge(c->Dim(part, 0), c->Dim(positions, 0), &size));
        TF_RETURN_IF_ERROR(c->Merge(dim, c->Dim(part, 1), &dim));
      }
      TF_RETURN_IF_ERROR(c->WithRank(c->input(2 * num_servers), 1, &keys));
      TF_RETURN_IF_ERROR(CheckSplitsShape(c, 2 * num_servers + 1));
      c->set_output(0, c->Matrix(c->Dim(keys, 0), dim));
      return absl::OkStatus();
    })
    .Doc(R"doc(
The rows that servers have looked up, in the order of the keys: `rows[positions[s][i]] == parts[s][i]`.

It ends the lookup of tables that are spread over servers, and has the gradient of EmbeddingLookup:
`IndexedSlices(grad, keys)`, table by table, which goes to `anchors`.

parts: float32 [N_s, D] each, the rows of server_keys of EmbeddingPartition.
positions: int32 [N_s] each, from EmbeddingPartition: together each of [0, N) once.
keys: int64 [N], those that were parted.
table_splits: int64 [T + 1], as for EmbeddingLookup. One table has none.
anchors: float32 [0, D] each, the values of the tables' variables.
rows: float32 [N, D].
keys_differ: the caller's word that no key of a table comes twice, as for EmbeddingLookup.
)doc");

}  // namespace sparse_emb
