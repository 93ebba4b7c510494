#include "cc/lib/partition.h"

#include <numeric>
#include <vector>

#include "tests/cc/keys.h"
#include "tests/cc/testing.h"

namespace sparse_emb {
namespace testing {
namespace {

TEST(ServersShareRangesOfKeysEvenly) {
  for (int64_t servers : {1, 2, 3, 5, 32}) {
    SCOPED_TRACE(servers, " servers");
    std::vector<int64_t> counts(servers);
    const int64_t n = 100'000;
    for (int64_t key = 0; key < n; ++key) ++counts[ServerOfKey(key, servers)];
    for (int64_t count : counts) {
      EXPECT_TRUE(count > .9 * n / servers && count < 1.1 * n / servers);
    }
  }
}

// Files of tables on servers are read by it: one build must find the keys that another has written.
TEST(TheServerOfAKeyNeverChanges) {
  const std::vector<int64_t> keys = {0, 1, -1, int64_t{1} << 40, INT64_MIN, INT64_MAX};
  const std::vector<int64_t> want = {507, 7, 428, 429, 920, 41};
  for (size_t i = 0; i < keys.size(); ++i) EXPECT_EQ(ServerOfKey(keys[i], 1000), want[i]);
}

TEST(KeysOfOneServerSpreadWithinItsTable) {
  // The keys of one server must reach all shards of its table: those are the top bits of HashKey.
  std::vector<int64_t> counts(64);
  int64_t n = 0;
  for (int64_t key = 0; key < 200'000; ++key) {
    if (ServerOfKey(key, 8) != 3) continue;
    ++counts[HashKey(key) >> 58];
    ++n;
  }
  for (int64_t count : counts) EXPECT_TRUE(count > .7 * n / 64 && count < 1.3 * n / 64);
}

TEST(AShareHasTheKeysOfItsServer) {
  for (int64_t servers : {1, 2, 3, 5, 32}) {
    for (int64_t key = -500; key < 500; ++key) {
      for (int64_t s = 0; s < servers; ++s) {
        EXPECT_EQ((Share{s, servers}.Has(key)), ServerOfKey(key, servers) == s);
      }
    }
  }
}

TEST(SharesOverlapAsTheirKeysDo) {
  constexpr int64_t kKeys = 20'000;
  for (int64_t from : {1, 2, 3, 5, 8, 32}) {
    for (int64_t to : {1, 2, 3, 5, 8, 32}) {
      SCOPED_TRACE(from, " servers, then ", to);
      std::vector<int64_t> of_from(from), both(from * to);
      for (int64_t key = 0; key < kKeys; ++key) {
        const int64_t s = ServerOfKey(key, from);
        ++of_from[s];
        ++both[s * to + ServerOfKey(key, to)];
      }
      int64_t pairs = 0;
      for (int64_t s = 0; s < from; ++s) {
        double sum = 0;
        for (int64_t t = 0; t < to; ++t) {
          const double part = Share{t, to}.PartOf({s, from});
          EXPECT_NEAR(part, static_cast<double>(both[s * to + t]) / of_from[s], .08);
          if (part == 0.0) EXPECT_EQ(both[s * to + t], int64_t{0});
          pairs += part > 0.0;
          sum += part;
        }
        EXPECT_NEAR(sum, 1.0, 1e-6);
      }
      EXPECT_LE(pairs, from + to - 1);  // so much is read, and no more
    }
  }
  // A part so small that none of those keys is in it must be read too.
  for (int64_t s = 0; s < 1000; ++s) {
    const int64_t server_of_997 = s * 997 / 1000;
    EXPECT_TRUE((Share{server_of_997, 997}.PartOf({s, 1000}) > 0.0));
  }
}

TEST(PartitionKeepsTheOrderOfKeysTableByTable) {
  for (int64_t servers : {1, 2, 3, 5}) {
    SCOPED_TRACE(servers, " servers");
    std::vector<int64_t> keys(1000);
    for (int64_t n = 0; n < 1000; ++n) keys[n] = n % 7 == 0 ? 42 : n * n - 500;
    const std::vector<int64_t> splits = {0, 0, 300, 1000};
    const Partition partition(keys.data(), splits.data(), 3, servers);
    std::vector<std::vector<int64_t>> server_splits(servers, std::vector<int64_t>(4));
    std::vector<std::vector<int64_t>> server_keys(servers);
    std::vector<std::vector<int32_t>> positions(servers);
    std::vector<ServerKeys> to;
    for (int64_t s = 0; s < servers; ++s) {
      partition.Splits(s, server_splits[s].data());
      server_keys[s].resize(server_splits[s][3]);
      positions[s].resize(server_splits[s][3]);
      to.push_back({server_keys[s].data(), positions[s].data()});
    }
    partition.Write(to);
    for (int64_t s = 0; s < servers; ++s) {
      for (int64_t t = 0; t < 3; ++t) {
        std::vector<int32_t> want;
        for (int64_t n = splits[t]; n < splits[t + 1]; ++n) {
          if (ServerOfKey(keys[n], servers) == s) want.push_back(static_cast<int32_t>(n));
        }
        const std::vector<int32_t> got(positions[s].begin() + server_splits[s][t],
                                       positions[s].begin() + server_splits[s][t + 1]);
        EXPECT_TRUE(got == want);
      }
      for (size_t i = 0; i < server_keys[s].size(); ++i) {
        EXPECT_EQ(server_keys[s][i], keys[positions[s][i]]);
      }
    }
  }
}

TEST(PlacingRowsUndoesTakingThem) {
  const int64_t n = 50'000, dim = 3;
  std::vector<float> rows(n * dim), again(n * dim);
  std::iota(rows.begin(), rows.end(), 0.0f);
  std::vector<int32_t> positions[2];
  for (int32_t i = 0; i < n; ++i) positions[ServerOfKey(i, 2)].push_back(i);
  StdThreadPool pool(3);
  for (const auto& part : positions) {
    std::vector<float> taken(part.size() * dim);
    const int64_t count = static_cast<int64_t>(part.size());
    TakeRows(rows.data(), part.data(), count, dim, taken.data(), &pool);
    PlaceRows(taken.data(), part.data(), count, dim, again.data(), &pool);
  }
  EXPECT_TRUE(rows == again);
}

}  // namespace
}  // namespace testing
}  // namespace sparse_emb
