#include "cc/ops/feature_attrs.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace sparse_emb {

using tensorflow::shape_inference::DimensionHandle;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

REGISTER_OP("SparseEmb>EmbeddingBags")
    .Input("keys: num_features * int64")
    .Input("row_splits: num_ragged * int64")
    .Output("bag_keys: int64")
    .Output("feature_splits: int64")
    .Output("first_bags: int64")
    .Output("bag_splits: int64")
    .Output("kept: int64")
    .Attr("num_features: int >= 1")
    .Attr("num_ragged: int >= 0")
    .Attr("names: list(string)")
    .Attr("kinds: list({'each', 'last_axis', 'ragged'})")
    .Attr("skipped: list(int) = []")
    .Attr("skipped_counts: list(int) = []")
    .Attr("max_lengths: list(int) = []")
    .Attr("input_dims: list(int) = []")
    .Attr("with_splits: bool = true")
    .Attr("with_kept: bool = false")
    .Attr("same_bags: bool = false")
    .SetShapeFn([](InferenceContext* c) {
      FeatureAttrs attrs;
      TF_RETURN_IF_ERROR(attrs.Get(c));
      const int num_features = attrs.num_features;

      bool keeps_all = attrs.skipped.empty();
      for (int64_t length : attrs.max_lengths) keeps_all = keeps_all && length < 0;
      DimensionHandle num_keys = c->MakeDim(0), num_bags = c->MakeDim(0);
      int ragged = 0;
      for (int f = 0; f < num_features; ++f) {
        ShapeHandle keys = c->input(f);
        if (attrs.kinds[f] == "ragged") {
          ShapeHandle splits;
          DimensionHandle bags;
          TF_RETURN_IF_ERROR(c->WithRank(keys, 1, &keys));
          TF_RETURN_IF_ERROR(c->WithRank(c->input(num_features + ragged++), 1, &splits));
          TF_RETURN_IF_ERROR(c->Subtract(c->Dim(splits, 0), 1, &bags));
          TF_RETURN_IF_ERROR(c->Add(num_bags, bags, &num_bags));
        } else if (attrs.kinds[f] == "last_axis") {
          TF_RETURN_IF_ERROR(c->WithRankAtLeast(keys, 1, &keys));
          DimensionHandle bags = c->RankKnown(keys) ? c->MakeDim(1) : c->UnknownDim();
          for (int axis = 0; c->RankKnown(keys) && axis < c->Rank(keys) - 1; ++axis) {
            TF_RETURN_IF_ERROR(c->Multiply(bags, c->Dim(keys, axis), &bags));
          }
          TF_RETURN_IF_ERROR(c->Add(num_bags, bags, &num_bags));
        } else {
          TF_RETURN_IF_ERROR(c->Add(num_bags, c->NumElements(keys), &num_bags));
        }
        TF_RETURN_IF_ERROR(c->Add(num_keys, c->NumElements(keys), &num_keys));
      }
      if (!keeps_all) num_keys = c->UnknownDim();
      DimensionHandle num_splits;
      TF_RETURN_IF_ERROR(c->Add(num_bags, 1, &num_splits));
      c->set_output(0, c->Vector(num_keys));
      c->set_output(1, c->Vector(num_features + 1));
      c->set_output(2, c->Vector(num_features + 1));
      c->set_output(3, c->Vector(attrs.with_splits ? num_splits : c->MakeDim(0)));
      c->set_output(4, c->Vector(attrs.with_kept ? num_keys : c->MakeDim(0)));
      return absl::OkStatus();
    })
    .Doc(R"doc(
The keys of F features as one list of keys in bags: what the other ops work on, however many
features there are.

The bags of a feature stand one after the other, those of the next feature behind them. Keys that
are skipped, and those beyond a bag's max_length, are left out. An error names the feature, the
position and the value of a key that is out of range.

keys: for each feature int64 of any shape; for a ragged one its values [N].
row_splits: for each ragged feature, in order, int64 [B + 1], from 0 to N, not descending.
bag_keys: int64 [N'], the keys that are kept.
feature_splits: int64 [F + 1]: the keys of feature f are [feature_splits[f], feature_splits[f + 1]).
first_bags: int64 [F + 1]: the bags of feature f are [first_bags[f], first_bags[f + 1]).
bag_splits: int64 [B + 1], B the number of all bags: bag b holds the keys from bag_splits[b] to
  bag_splits[b + 1] - 1. Empty without with_splits.
kept: int64 [N'], where each key stood among all that came in; empty without with_kept.
names: of the features, for error messages.
kinds: what a feature's bags are: 'each' of its keys, its keys along the 'last_axis', or 'ragged'.
skipped: the keys of the features that stand for nothing, one feature's after the other's.
skipped_counts: how many of them each feature has; empty: none.
max_lengths: how many keys of a bag count, skipped ones too; -1, or no list: all.
input_dims: keys must be in [0, input_dim) or skipped; -1, or no list: every int64.
with_splits: whether to give `bag_splits`.
with_kept: whether to give `kept`.
same_bags: whether it is an error if one feature has more bags than another.
)doc");

}  // namespace sparse_emb
