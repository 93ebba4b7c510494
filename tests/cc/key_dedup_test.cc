#include "cc/lib/key_dedup.h"

#include <string>
#include <unordered_map>
#include <vector>

#include "tests/cc/keys.h"
#include "tests/cc/testing.h"

namespace sparse_emb {
namespace testing {
namespace {

constexpr int64_t kMinPart = 16384;  // below twice that many keys the dedup is serial

struct Deduped {
  std::vector<int64_t> unique;
  std::vector<int32_t> inverse, counts;
};

Deduped DedupNaively(const std::vector<int64_t>& keys) {
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

void ExpectDedup(const std::vector<int64_t>& keys) {
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

std::vector<int64_t> Sample(const std::vector<int64_t>& from, int64_t n) {
  Random random(n);
  std::vector<int64_t> keys(n);
  for (int64_t& key : keys) key = from[random.Below(from.size())];
  return keys;
}

const int64_t kSizes[] = {
    0, 1, 2, 31, 32, 33, 1000, 2 * kMinPart - 1, 2 * kMinPart, 3 * kMinPart + 7, 5 * kMinPart};

TEST(EqualKeysAreOne) {
  for (int64_t n : kSizes) ExpectDedup(std::vector<int64_t>(n, INT64_MIN));
}

TEST(DifferentKeysKeepTheirOrder) {
  for (int64_t n : kSizes) {
    std::vector<int64_t> keys = DenseKeys(n);
    ExpectDedup(keys);
    for (int64_t& key : keys) key = -key * 0x100000001;
    ExpectDedup(keys);
  }
}

TEST(RepeatedKeysAreNumberedByFirstOccurrence) {
  for (int64_t n : kSizes) {
    for (int64_t different : {2, 50, 512, 513, 20000}) {
      ExpectDedup(Sample(DenseKeys(different), n));
    }
  }
}

// A key that comes first in the last part, or in every part once.
TEST(KeysThatMeetAcrossPartsAreOne) {
  std::vector<int64_t> keys = DenseKeys(2 * kMinPart);
  const std::vector<int64_t> again = keys;
  keys.insert(keys.end(), again.rbegin(), again.rend());
  ExpectDedup(keys);
  keys.assign(4 * kMinPart, 3);
  keys.back() = 4;
  ExpectDedup(keys);
}

TEST(AdversarialAndExtremeKeysAreCounted) {
  const std::vector<int64_t> hard = HardKeys(2000);
  ExpectDedup(hard);
  for (int64_t n : kSizes) ExpectDedup(Sample(hard, n));
  ExpectDedup(CollidingKeys(2000));
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
DedupedByTable DedupNaively(const Features& features) {
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

void ExpectDedup(const Features& features) {
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

TEST(KeysOfSeveralTablesAreDedupedTableByTable) {
  Random random(5);
  for (int64_t num_tables : {1, 2, 3, 7, 20}) {
    for (int64_t num_features : {1, 2, 5, 26}) {
      for (int64_t most : {1, 20, 1000, 8000}) {
        Features features(num_tables);
        for (int64_t f = 0; f < num_features; ++f) {
          const int64_t different = 1 + random.Below(2 * most);
          features.Add(random.Below(num_tables),
                       Sample(DenseKeys(different), random.OneIn(4) ? 0 : random.Below(most)));
        }
        ExpectDedup(features);
      }
    }
  }
}

// The same key in two tables is two keys; in two features of one table it is one.
TEST(AKeyIsOneInATableAndAnotherInTheNext) {
  Features features(2);
  features.Add(1, {5, INT64_MIN, 5});
  features.Add(0, {5, 6});
  features.Add(1, {7, 5, INT64_MAX});
  features.Add(0, {6, 5});
  const DedupedByTable want = DedupNaively(features);
  EXPECT_EQ(want.unique, std::vector<int64_t>({5, 6, 5, INT64_MIN, 7, INT64_MAX}));
  EXPECT_EQ(want.inverse, std::vector<int32_t>({2, 3, 2, 0, 1, 4, 2, 5, 1, 0}));
  EXPECT_EQ(want.counts, std::vector<int32_t>({2, 2, 3, 1, 1, 1}));
  EXPECT_EQ(want.table_splits, std::vector<int64_t>({0, 2, 6}));
  ExpectDedup(features);
}

TEST(TablesWithoutKeysHaveNoUniqueOnes) {
  for (int64_t num_tables : {1, 2, 5}) {
    Features features(num_tables);
    ExpectDedup(features);  // no features
    features.Add(0, {});
    ExpectDedup(features);
    features.Add(num_tables - 1, {});
    features.Add(num_tables / 2, {3, 3});
    features.Add(num_tables / 2, {});
    ExpectDedup(features);
  }
}

// One table whose keys are cut up among threads, and two that cannot be.
TEST(LargeTablesAreDedupedAlike) {
  for (int64_t num_tables : {1, 2}) {
    Features features(num_tables);
    features.Add(0, Sample(DenseKeys(30000), 3 * kMinPart));
    features.Add(num_tables - 1, Sample(HardKeys(2000), 3 * kMinPart));
    features.Add(0, Sample(DenseKeys(60000), kMinPart));
    ExpectDedup(features);
  }
}

}  // namespace
}  // namespace testing
}  // namespace sparse_emb
