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

}  // namespace
}  // namespace testing
}  // namespace sparse_emb
