#include "cc/lib/key_dedup.h"

#include <vector>

#include "tests/cc/key_dedup_model.h"
#include "tests/cc/keys.h"
#include "tests/cc/testing.h"

namespace sparse_emb {
namespace testing {
namespace {

constexpr int64_t kMinPart = 16384;  // below twice that many keys the dedup is serial

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

// As many keys differ as let the scratch grow, whose size is a power of two; then the first come
// again.
TEST(KeysAreKnownAfterTheScratchHasGrown) {
  for (int64_t n : {1280, 20000}) {
    std::vector<int64_t> keys = DenseKeys(n);
    for (int64_t i = 0; i < n; ++i) keys[i] *= 0x10001;
    for (int64_t i = 0; i < n / 15; ++i) keys.push_back(keys[i * 7]);
    ExpectDedup(keys);
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
