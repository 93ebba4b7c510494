// A dumb model of a table, and what the tests of tables share.
#ifndef TF_SPARSE_EMB_TESTS_CC_TABLE_MODEL_H_
#define TF_SPARSE_EMB_TESTS_CC_TABLE_MODEL_H_

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "cc/lib/table.h"
#include "tests/cc/table_content.h"
#include "tests/cc/testing.h"

namespace sparse_emb {
namespace testing {

inline const char* const kAllStorages[] = {"unordered_map", "open_addressing", "chained", "slab",
                                           "index"};

inline std::unique_ptr<Table> NewTable(const TableOptions& options) {
  std::unique_ptr<Table> table;
  EXPECT_OK(MakeTable(options, &table));
  return table;
}

inline TableOptions UniformTable(const std::string& storage, int64_t dim, int64_t input_dim = -1) {
  TableOptions options;
  options.name = "item";
  options.storage = storage;
  options.dim = dim;
  options.input_dim = input_dim;
  EXPECT_OK(InitialRow::Make("uniform", -0.5f, 0.25f, 7, &options.initial_row));
  return options;
}

class TableModel {
 public:
  explicit TableModel(const TableOptions& options) : options_(options) {}

  std::vector<float> Initial(int64_t key) const {
    std::vector<float> row(options_.dim);
    if (!IsPadding(key)) options_.initial_row.Fill(key, row.data(), options_.dim);
    return row;
  }

  std::vector<float> Lookup(const std::vector<int64_t>& keys, bool insert, Missing missing) {
    if (insert) {
      for (int64_t key : std::set<int64_t>(keys.begin(), keys.end())) {
        if (Contains(key) || !IsPadding(key)) BoundNorm(&RowOf(key).embedding);
      }
    }
    std::vector<float> out;
    for (int64_t key : keys) {
      std::vector<float> row =
          missing == Missing::kZeros ? std::vector<float>(options_.dim) : Initial(key);
      if (Contains(key)) row = RowOf(key).embedding;
      if (!insert) BoundNorm(&row);
      out.insert(out.end(), row.begin(), row.end());
    }
    return out;
  }

  void Update(const std::vector<int64_t>& keys, const std::vector<float>& grads,
              const RuleCall& rule) {
    SerialPool pool;
    for (size_t i = 0; i < keys.size(); ++i) {
      if (IsPadding(keys[i])) continue;
      const int64_t dim = options_.dim;
      Row& row = RowOf(keys[i]);
      std::vector<float> both = row.embedding;
      both.insert(both.end(), row.state.begin(), row.state.end());
      float* address = both.data();
      ApplyRule(rule, &address, grads.data() + i * dim, 1, dim, dim, &pool);
      row.embedding.assign(both.begin(), both.begin() + dim);
      row.state.assign(both.begin() + dim, both.end());
    }
    for (auto& [key, row] : rows_) {
      for (double& count : row.counts) count *= options_.key_counts.decay;
    }
  }

  void Upsert(const std::vector<int64_t>& keys, const std::vector<float>& rows) {
    for (size_t i = 0; i < keys.size(); ++i) {
      const float* row = rows.data() + i * options_.dim;
      RowOf(keys[i]).embedding.assign(row, row + options_.dim);
    }
  }

  // The deltas of a key are summed before the sum is added.
  void ScatterAdd(const std::vector<int64_t>& keys, const std::vector<float>& deltas) {
    Rows sums;
    for (size_t i = 0; i < keys.size(); ++i) {
      std::vector<float>& sum = sums[keys[i]];
      sum.resize(options_.dim);
      for (int64_t d = 0; d < options_.dim; ++d) sum[d] += deltas[i * options_.dim + d];
    }
    for (const auto& [key, sum] : sums) {
      for (int64_t d = 0; d < options_.dim; ++d) RowOf(key).embedding[d] += sum[d];
    }
  }

  void Count(const std::vector<int64_t>& keys, const std::vector<double>& amounts) {
    const int64_t width = options_.key_counts.width;
    for (size_t i = 0; i < keys.size(); ++i) {
      if (!Contains(keys[i]) || IsPadding(keys[i])) continue;
      for (int64_t k = 0; k < width; ++k) RowOf(keys[i]).counts[k] += amounts[i * width + k];
    }
  }

  std::vector<double> GetCounts(const std::vector<int64_t>& keys) {
    std::vector<double> out;
    for (int64_t key : keys) {
      std::vector<double> counts(options_.key_counts.width);
      if (Contains(key)) counts = RowOf(key).counts;
      out.insert(out.end(), counts.begin(), counts.end());
    }
    return out;
  }

  void Bind(const std::string& rule, std::vector<float> initial_state) {
    rule_ = rule;
    state_ = std::move(initial_state);
    for (auto& [key, row] : rows_) row.state = state_;
  }

  // Rows that bring the state of the table's rule must have all of it.
  bool CanRestore(const Content& in) const {
    return rule_.empty() || in.rule != rule_ ||
           in.width == options_.dim + static_cast<int64_t>(state_.size());
  }

  void Restore(const Content& in) {
    const int64_t dim = options_.dim;
    const bool keep = !rule_.empty() && in.rule == rule_;
    rows_.clear();
    for (int64_t i = 0; i < in.size(); ++i) {
      Row& row = RowOf(in.keys[i]);
      const float* from = in.rows.data() + i * in.width;
      row.embedding.assign(from, from + dim);
      if (keep) row.state.assign(from + dim, from + in.width);
      if (in.counts.empty()) continue;
      const double* counts = in.counts.data() + i * in.num_counts;
      row.counts.assign(counts, counts + in.num_counts);
    }
  }

  std::vector<float> ReadRows(const std::vector<int64_t>& keys) {
    std::vector<float> out;
    for (int64_t key : keys) {
      const Row row = Contains(key) ? RowOf(key) : Row{Initial(key), state_, {}};
      out.insert(out.end(), row.embedding.begin(), row.embedding.end());
      out.insert(out.end(), row.state.begin(), row.state.end());
    }
    return out;
  }

  bool Contains(int64_t key) const { return rows_.count(key) > 0; }
  void Remove(int64_t key) { rows_.erase(key); }
  void Clear() { rows_.clear(); }
  int64_t size() const { return static_cast<int64_t>(rows_.size()); }
  const std::string& rule() const { return rule_; }

  Rows Export(bool with_state) const {
    Rows rows;
    for (const auto& [key, row] : rows_) {
      std::vector<float>& out = rows[key] = row.embedding;
      if (with_state) out.insert(out.end(), row.state.begin(), row.state.end());
    }
    return rows;
  }

 private:
  struct Row {
    std::vector<float> embedding, state;
    std::vector<double> counts;
  };

  bool IsPadding(int64_t key) const { return options_.padding_key == key; }

  Row& RowOf(int64_t key) {
    const auto [found, is_new] = rows_.try_emplace(key);
    if (is_new) {
      found->second = {Initial(key), state_, std::vector<double>(options_.key_counts.width)};
    }
    return found->second;
  }

  void BoundNorm(std::vector<float>* row) const {
    if (!options_.max_norm.enabled()) return;
    const float scale = options_.max_norm.ScaleOf(row->data(), options_.dim);
    for (float& value : *row) value *= scale;
  }

  const TableOptions options_;
  std::string rule_;
  std::vector<float> state_;
  std::unordered_map<int64_t, Row> rows_;
};

}  // namespace testing
}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_TESTS_CC_TABLE_MODEL_H_
