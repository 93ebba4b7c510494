// The dedup by std::unordered_map.
#ifndef TF_SPARSE_EMB_TESTS_CC_KEY_DEDUP_MODEL_H_
#define TF_SPARSE_EMB_TESTS_CC_KEY_DEDUP_MODEL_H_

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "cc/lib/key_dedup.h"
#include "tests/cc/testing.h"

namespace sparse_emb {
namespace testing {

struct Deduped {
  std::vector<int64_t> unique;
  std::vector<int32_t> inverse, counts;
};

inline Deduped DedupNaively(const std::vector<int64_t>& keys) {
  Deduped result;
  std::unordered_map<int64_t, int32_t> numbers;
  for (int64_t key : keys) {
    const auto [found, is_new] = numbers.emplace(key, static_cast<int32_t>(numbers.size()));
    if (is_new) {
      result.unique.push_back(key);
      result.counts.push_back(0);
    }
    result.inverse.push_back(found->second);
    ++result.counts[found->second];
  }
  return result;
}

inline void ExpectDedup(const std::vector<int64_t>& keys) {
  const Deduped want = DedupNaively(keys);
  for (int threads = 1; threads <= 4; ++threads) {
    SCOPED_TRACE(keys.size(), " keys, ", threads, " threads");
    StdThreadPool pool(threads);
    const size_t n = keys.size();
    // One element more than allowed, to see that it is not written.
    Deduped got{std::vector<int64_t>(n + 1, -7), std::vector<int32_t>(n + 1, -7),
                std::vector<int32_t>(n + 1, -7)};
    const int64_t size =
        DedupKeys(keys.data(), n, got.unique.data(), got.inverse.data(), got.counts.data(), &pool);
    EXPECT_EQ(size, static_cast<int64_t>(want.unique.size()));
    EXPECT_EQ(got.unique[n], -7);
    EXPECT_EQ(got.inverse[n], -7);
    EXPECT_EQ(got.counts[n], -7);
    got.unique.resize(size);
    got.inverse.resize(n);
    got.counts.resize(size);
    EXPECT_EQ(got.unique, want.unique);
    EXPECT_EQ(got.inverse, want.inverse);
    EXPECT_EQ(got.counts, want.counts);
  }
}

// The features' keys one after the other, and the table of each feature.
struct Features {
  std::vector<int64_t> keys, splits = {0}, tables;
  int64_t num_tables;

  explicit Features(int64_t num_tables) : num_tables(num_tables) {}

  void Add(int64_t table, const std::vector<int64_t>& feature_keys) {
    keys.insert(keys.end(), feature_keys.begin(), feature_keys.end());
    splits.push_back(keys.size());
    tables.push_back(table);
  }
};

struct DedupedByTable : Deduped {
  std::vector<int64_t> table_splits;
};

// Table by table: the keys of its features as one list.
inline DedupedByTable DedupNaively(const Features& features) {
  DedupedByTable result;
  result.inverse.resize(features.keys.size());
  result.table_splits = {0};
  for (int64_t table = 0; table < features.num_tables; ++table) {
    std::vector<int64_t> keys, positions;
    for (size_t f = 0; f < features.tables.size(); ++f) {
      if (features.tables[f] != table) continue;
      for (int64_t i = features.splits[f]; i < features.splits[f + 1]; ++i) {
        keys.push_back(features.keys[i]);
        positions.push_back(i);
      }
    }
    const Deduped of_table = DedupNaively(keys);
    const int32_t first = static_cast<int32_t>(result.unique.size());
    for (size_t i = 0; i < keys.size(); ++i) {
      result.inverse[positions[i]] = first + of_table.inverse[i];
    }
    result.unique.insert(result.unique.end(), of_table.unique.begin(), of_table.unique.end());
    result.counts.insert(result.counts.end(), of_table.counts.begin(), of_table.counts.end());
    result.table_splits.push_back(result.unique.size());
  }
  return result;
}

inline void ExpectDedup(const Features& features) {
  const DedupedByTable want = DedupNaively(features);
  for (int threads = 1; threads <= 4; ++threads) {
    SCOPED_TRACE(features.keys.size(), " keys, ", features.tables.size(), " features, ",
                 features.num_tables, " tables, ", threads, " threads");
    StdThreadPool pool(threads);
    const size_t n = features.keys.size();
    std::vector<int64_t> unique(n + 1, -7), table_splits(features.num_tables + 2, -7);
    std::vector<int32_t> inverse(n + 1, -7), counts(n + 1, -7);
    const int64_t size =
        DedupKeysByTable(features.keys.data(), features.splits.data(), features.tables.data(),
                         features.tables.size(), features.num_tables, unique.data(), inverse.data(),
                         counts.data(), table_splits.data(), &pool);
    EXPECT_EQ(size, static_cast<int64_t>(want.unique.size()));
    EXPECT_EQ(unique[n], -7);
    EXPECT_EQ(inverse[n], -7);
    EXPECT_EQ(counts[n], -7);
    EXPECT_EQ(table_splits.back(), -7);
    unique.resize(size);
    inverse.resize(n);
    counts.resize(size);
    table_splits.pop_back();
    EXPECT_EQ(unique, want.unique);
    EXPECT_EQ(inverse, want.inverse);
    EXPECT_EQ(counts, want.counts);
    EXPECT_EQ(table_splits, want.table_splits);
  }
}

}  // namespace testing
}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_TESTS_CC_KEY_DEDUP_MODEL_H_
