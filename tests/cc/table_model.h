// A dumb model of a table, and what the tests of tables share.
#ifndef TF_SPARSE_EMB_TESTS_CC_TABLE_MODEL_H_
#define TF_SPARSE_EMB_TESTS_CC_TABLE_MODEL_H_

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "cc/lib/table.h"
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

using Rows = std::map<int64_t, std::vector<float>>;

// All rows of the table, by key. Fails where a key comes twice or the size is not theirs.
inline Rows ExportRows(Table* table, bool with_state) {
  std::vector<int64_t> keys;
  std::vector<float> values;
  int64_t width = 0;
  table->Export(with_state, [&](int64_t n, int64_t w) {
    keys.resize(n);
    values.resize(n * w);
    width = w;
    return Table::ExportBuffers(keys.data(), values.data());
  });
  Rows rows;
  for (size_t i = 0; i < keys.size(); ++i) {
    rows[keys[i]].assign(values.begin() + i * width, values.begin() + (i + 1) * width);
  }
  EXPECT_EQ(rows.size(), keys.size());
  return rows;
}

inline void ExpectSameRows(const Rows& got, const Rows& want) {
  EXPECT_EQ(got.size(), want.size());
  for (auto g = got.begin(), w = want.begin(); g != got.end() && w != want.end(); ++g, ++w) {
    EXPECT_EQ(g->first, w->first);
    EXPECT_EQ(g->second, w->second);
  }
}

class TableModel {
 public:
  explicit TableModel(const TableOptions& options) : options_(options) {}

  std::vector<float> Initial(int64_t key) const {
    std::vector<float> row(options_.dim);
    options_.initial_row.Fill(key, row.data(), options_.dim);
    return row;
  }

  std::vector<float> Lookup(const std::vector<int64_t>& keys, bool insert, Missing missing) {
    std::vector<float> out;
    for (int64_t key : keys) {
      std::vector<float> row;
      if (insert || Contains(key)) {
        row = RowOf(key);
        row.resize(options_.dim);
      } else {
        row = missing == Missing::kZeros ? std::vector<float>(options_.dim) : Initial(key);
      }
      out.insert(out.end(), row.begin(), row.end());
    }
    return out;
  }

  void Update(const std::vector<int64_t>& keys, const std::vector<float>& grads,
              const RuleCall& rule) {
    SerialPool pool;
    for (size_t i = 0; i < keys.size(); ++i) {
      float* row = RowOf(keys[i]).data();
      ApplyRule(rule, &row, grads.data() + i * options_.dim, 1, options_.dim, &pool);
    }
  }

  void Upsert(const std::vector<int64_t>& keys, const std::vector<float>& rows) {
    for (size_t i = 0; i < keys.size(); ++i) {
      const float* row = rows.data() + i * options_.dim;
      std::copy(row, row + options_.dim, RowOf(keys[i]).begin());
    }
  }

  void Bind(std::vector<float> initial_state) {
    state_ = std::move(initial_state);
    for (auto& [key, row] : rows_) {
      row.resize(options_.dim);
      row.insert(row.end(), state_.begin(), state_.end());
    }
  }

  bool Contains(int64_t key) const { return rows_.count(key) > 0; }
  void Remove(int64_t key) { rows_.erase(key); }
  void Clear() { rows_.clear(); }
  int64_t size() const { return static_cast<int64_t>(rows_.size()); }

  Rows Export(bool with_state) const {
    Rows rows(rows_.begin(), rows_.end());
    if (!with_state) {
      for (auto& [key, row] : rows) row.resize(options_.dim);
    }
    return rows;
  }

 private:
  std::vector<float>& RowOf(int64_t key) {
    std::vector<float>& row = rows_[key];
    if (row.empty()) {
      row = Initial(key);
      row.insert(row.end(), state_.begin(), state_.end());
    }
    return row;
  }

  const TableOptions options_;
  std::vector<float> state_;
  std::unordered_map<int64_t, std::vector<float>> rows_;
};

}  // namespace testing
}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_TESTS_CC_TABLE_MODEL_H_
