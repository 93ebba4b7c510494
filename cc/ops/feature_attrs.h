// The attributes of ops on several features or tables, checked: by the shape functions, and by the
// kernels, because eager mode runs no shape function.
#ifndef TF_SPARSE_EMB_CC_OPS_FEATURE_ATTRS_H_
#define TF_SPARSE_EMB_CC_OPS_FEATURE_ATTRS_H_

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace sparse_emb {

// An error unless keys of so many tables have one table_splits, or none for one table.
inline absl::Status CheckNumTableSplits(int64_t num_tables, int64_t num_splits) {
  if (num_splits == (num_tables == 1 ? 0 : 1)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("keys of ", num_tables, " tables need ",
                                                 num_tables == 1 ? "no" : "one",
                                                 " table_splits, got ", num_splits));
}

// Those of an op that deduplicates the keys of features, table by table, and what its shape
// function makes of them.
struct KeyDedupAttrs {
  std::vector<int64_t> tables;  // of each feature
  int64_t num_tables = 0;
  int num_splits = 0;

  // Context is an InferenceContext or an OpKernelConstruction.
  template <class Context>
  absl::Status Get(Context* c, const char* tables_name) {
    absl::Status status = c->GetAttr(tables_name, &tables);
    if (status.ok()) status = c->GetAttr("num_splits", &num_splits);
    if (!status.ok()) return status;
    const int64_t num_features = static_cast<int64_t>(tables.size());
    if (num_features == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(tables_name, " must name the table of each feature, got none"));
    }
    for (int64_t table : tables) {
      if (table < 0 || table >= num_features) {
        return absl::InvalidArgumentError(
            absl::StrCat(tables_name, " must be in [0, ", num_features, "), got ", table));
      }
      num_tables = std::max(num_tables, table + 1);
    }
    if (num_splits > 1 || (num_splits == 0 && num_features != 1)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "keys of ", num_features, " features need one feature_splits, got ", num_splits));
    }
    return absl::OkStatus();
  }

  // An error unless the features are on so many tables.
  absl::Status CheckNumTables(int64_t want) const {
    if (num_tables == want) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("feature_tables must be numbers of all ", want,
                                                   " tables, got ", num_tables, " tables"));
  }

  // An error unless the feature_splits at input `first`, if any, fit the features.
  template <class Context>
  absl::Status CheckSplits(Context* c, int first) const {
    if (num_splits == 0) return absl::OkStatus();
    auto splits = c->input(first);
    absl::Status status = c->WithRank(splits, 1, &splits);
    if (!status.ok()) return status;
    auto size = c->Dim(splits, 0);
    return c->WithValue(size, tables.size() + 1, &size);
  }

  // unique_keys, inverse, counts and table_splits.
  template <class Context, class Shape>
  void SetUniqueOutputs(Context* c, const Shape& keys) const {
    const Shape unique = c->Vector(c->UnknownDim());
    c->set_output(0, unique);
    c->set_output(1, keys);
    c->set_output(2, unique);
    c->set_output(3, c->Vector(num_tables + 1));
  }
};

// Those of EmbeddingBags.
struct FeatureAttrs {
  int num_features = 0, num_ragged = 0;
  std::vector<std::string> names, kinds;
  std::vector<int64_t> skipped, skipped_counts, max_lengths, input_dims;
  bool with_splits = true, with_kept = false, same_bags = false;

  template <class Context>
  absl::Status Get(Context* c) {
    for (absl::Status status :
         {c->GetAttr("num_features", &num_features), c->GetAttr("num_ragged", &num_ragged),
          c->GetAttr("names", &names), c->GetAttr("kinds", &kinds), c->GetAttr("skipped", &skipped),
          c->GetAttr("skipped_counts", &skipped_counts), c->GetAttr("max_lengths", &max_lengths),
          c->GetAttr("input_dims", &input_dims), c->GetAttr("with_splits", &with_splits),
          c->GetAttr("with_kept", &with_kept), c->GetAttr("same_bags", &same_bags),
          CheckSize("names", names.size(), false), CheckSize("kinds", kinds.size(), false),
          CheckSize("skipped_counts", skipped_counts.size(), true),
          CheckSize("max_lengths", max_lengths.size(), true),
          CheckSize("input_dims", input_dims.size(), true), CheckSkipped(), CheckRagged()}) {
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

 private:
  absl::Status CheckSize(const char* name, size_t size, bool optional) const {
    if (static_cast<int>(size) == num_features || (optional && size == 0)) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(name, " must have one element for each of ",
                                                   num_features, " features, got ", size));
  }

  absl::Status CheckSkipped() const {
    int64_t total = 0;
    for (int64_t count : skipped_counts) {
      if (count < 0) {
        return absl::InvalidArgumentError(
            absl::StrCat("skipped_counts must not be negative, got ", count));
      }
      total += count;
    }
    if (total == static_cast<int64_t>(skipped.size())) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("skipped must have the sum of skipped_counts, ",
                                                   total, " elements, got ", skipped.size()));
  }

  absl::Status CheckRagged() const {
    const int64_t ragged = std::count(kinds.begin(), kinds.end(), "ragged");
    if (ragged == num_ragged) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("row_splits must have one tensor for each of ",
                                                   ragged, " ragged features, got ", num_ragged));
  }
};

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_OPS_FEATURE_ATTRS_H_
