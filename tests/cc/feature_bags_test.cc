// The bags of several features against a slow twin.
#include "cc/lib/feature_bags.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "tests/cc/testing.h"

namespace sparse_emb {
namespace testing {
namespace {

constexpr int64_t kMin = std::numeric_limits<int64_t>::min();
constexpr int64_t kMax = std::numeric_limits<int64_t>::max();

struct Feature {
  std::vector<std::vector<int64_t>> bags;
  bool ragged;
  std::vector<int64_t> skipped;
  int64_t max_length = -1;
  int64_t input_dim = -1;

  // The arrays, and what points to them.
  struct Input {
    std::vector<int64_t> keys, splits;
    FeatureKeys feature;
  };
  void Make(Input* input) const {
    input->splits = {0};
    for (const std::vector<int64_t>& bag : bags) {
      input->keys.insert(input->keys.end(), bag.begin(), bag.end());
      input->splits.push_back(input->keys.size());
    }
    const int64_t num_bags = bags.size();
    const int64_t bag_size = bags.empty() ? 4 : bags[0].size();
    input->feature = {"f",
                      input->keys.data(),
                      static_cast<int64_t>(input->keys.size()),
                      num_bags,
                      ragged ? -99 : bag_size,
                      ragged ? input->splits.data() : nullptr,
                      skipped,
                      max_length,
                      input_dim};
  }
};

struct Bagged {
  std::vector<int64_t> keys, splits_end, kept;
};

Bagged BagNaively(const std::vector<Feature>& features) {
  Bagged result;
  int64_t position = 0;
  for (const Feature& feature : features) {
    for (const std::vector<int64_t>& bag : feature.bags) {
      int64_t place = 0;
      for (int64_t key : bag) {
        const bool counts = feature.max_length < 0 || place < feature.max_length;
        const auto& skipped = feature.skipped;
        if (counts && std::count(skipped.begin(), skipped.end(), key) == 0) {
          result.keys.push_back(key);
          result.kept.push_back(position);
        }
        ++place;
        ++position;
      }
      result.splits_end.push_back(result.keys.size());
    }
  }
  return result;
}

// With all that may be null in its turn, and no more written than is promised.
void ExpectBags(const std::vector<Feature>& features) {
  const Bagged want = BagNaively(features);
  std::vector<Feature::Input> inputs(features.size());
  int64_t num_keys = 0, num_bags = 0;
  for (size_t f = 0; f < features.size(); ++f) {
    features[f].Make(&inputs[f]);
    num_keys += inputs[f].feature.n;
    num_bags += inputs[f].feature.num_bags;
  }
  constexpr int64_t kGuard = -1234567;
  for (bool with_splits : {false, true}) {
    for (bool with_kept : {false, true}) {
      SCOPED_TRACE(features.size(), " features, ", num_keys, " keys");
      Bagged got{std::vector<int64_t>(num_keys + 1, kGuard),
                 std::vector<int64_t>(num_bags + 1, kGuard),
                 std::vector<int64_t>(num_keys + 1, kGuard)};
      int64_t size = 0, position = 0, bag = 0;
      for (const Feature::Input& input : inputs) {
        AppendBags(input.feature, position, &size, got.keys.data(),
                   with_splits ? got.splits_end.data() + bag : nullptr,
                   with_kept ? got.kept.data() : nullptr);
        position += input.feature.n;
        bag += input.feature.num_bags;
      }
      EXPECT_EQ(size, static_cast<int64_t>(want.keys.size()));
      EXPECT_EQ(got.keys.back(), kGuard);
      EXPECT_EQ(got.splits_end.back(), kGuard);
      EXPECT_EQ(got.kept.back(), kGuard);
      got.keys.resize(want.keys.size());
      got.kept.resize(want.kept.size());
      got.splits_end.resize(num_bags);
      EXPECT_EQ(got.keys, want.keys);
      if (with_splits) EXPECT_EQ(got.splits_end, want.splits_end);
      if (with_kept) EXPECT_EQ(got.kept, want.kept);
    }
  }
}

const int64_t kKeys[] = {0, 1, 2, 3, 7, -1, kMin, kMax};

Feature SomeFeature(Random* random) {
  Feature feature;
  feature.ragged = random->OneIn(2);
  const int64_t bag_size = random->Below(6);
  for (int64_t bags = random->Below(8); bags > 0; --bags) {
    std::vector<int64_t> bag(feature.ragged ? random->Below(7) : bag_size);
    for (int64_t& key : bag) key = kKeys[random->Below(std::size(kKeys))];
    feature.bags.push_back(bag);
  }
  for (int64_t count = random->OneIn(3) ? 0 : random->Below(4); count > 0; --count) {
    feature.skipped.push_back(kKeys[random->Below(std::size(kKeys))]);
  }
  if (random->OneIn(2)) feature.max_length = random->OneIn(10) ? kMax : random->Below(8);
  return feature;
}

TEST(BagsOfSeveralFeaturesAreOneList) {
  Random random(1);
  for (int64_t i = 0; i < Repeats(5000) && !HasFailure(); ++i) {
    std::vector<Feature> features;
    for (int64_t f = random.Below(5); f >= 0; --f) features.push_back(SomeFeature(&random));
    ExpectBags(features);
  }
}

TEST(FeaturesWithoutBagsOrKeysAddNothing) {
  ExpectBags({});
  for (bool ragged : {false, true}) {
    for (const std::vector<int64_t>& skipped : {std::vector<int64_t>(), {0, -1}}) {
      ExpectBags({{{}, ragged, skipped}});
      ExpectBags({{{{}}, ragged, skipped}});
      ExpectBags({{{{}, {}, {}}, ragged, skipped}});
      ExpectBags({{{{}, {}}, ragged, skipped}, {{{5}, {6}}, false, {}}, {{}, ragged, skipped}});
    }
  }
}

TEST(NullArraysOfNothingAreNotRead) {
  const int64_t no_keys[] = {0};
  for (const int64_t* splits : {static_cast<const int64_t*>(nullptr), no_keys}) {
    for (int64_t max_length : {-1, 2}) {
      const FeatureKeys feature{"f", nullptr, 0, 0, 0, splits, {}, max_length, 5};
      int64_t size = 0;
      AppendBags(feature, 0, &size, nullptr, nullptr, nullptr);
      EXPECT_EQ(size, 0);
      EXPECT_EQ(FirstOutOfRange(feature), -1);
    }
  }
}

// The first keys of a bag count, skipped ones too.
TEST(MaxLengthCountsSkippedKeysToo) {
  const std::vector<std::vector<int64_t>> bags = {{0, 5, 0, 6}, {7, 8, 9}, {0, 0, 0}, {}, {4}};
  const auto keys_of = [&](std::vector<int64_t> skipped, int64_t max_length) {
    const Feature feature{bags, true, skipped, max_length};
    ExpectBags({feature});
    return BagNaively({feature}).keys;
  };
  EXPECT_EQ(keys_of({0}, 2), std::vector<int64_t>({5, 7, 8, 4}));
  EXPECT_EQ(keys_of({}, 2), std::vector<int64_t>({0, 5, 7, 8, 0, 0, 4}));
  EXPECT_EQ(keys_of({}, 0), std::vector<int64_t>());
  EXPECT_EQ(keys_of({0, 7, 4}, 100), std::vector<int64_t>({5, 6, 8, 9}));
  EXPECT_EQ(keys_of({0, 4, 5, 6, 7, 8, 9}, -1), std::vector<int64_t>());
}

TEST(OnlyAFeatureThatLeavesOutNothingKeepsAll) {
  const auto keeps_all = [](std::vector<int64_t> skipped, int64_t max_length) {
    return FeatureKeys{"f", nullptr, 0, 0, 0, nullptr, skipped, max_length}.keeps_all();
  };
  EXPECT_TRUE(keeps_all({}, -1));
  EXPECT_TRUE(!keeps_all({0}, -1));
  EXPECT_TRUE(!keeps_all({}, 0));
  EXPECT_TRUE(!keeps_all({}, kMax));
}

TEST(FirstOutOfRangeIsTheFirst) {
  const std::vector<int64_t> keys = {3, 0, 4, -1, 5, kMin, kMax, 9};
  const auto first = [&](int64_t input_dim, std::vector<int64_t> skipped, int64_t max_length = -1) {
    const int64_t n = keys.size();
    return FirstOutOfRange({"f", keys.data(), n, 1, n, nullptr, skipped, max_length, input_dim});
  };
  EXPECT_EQ(first(-1, {}), -1);
  EXPECT_EQ(first(5, {}), 3);
  EXPECT_EQ(first(4, {}), 2);
  EXPECT_EQ(first(1, {}), 0);
  EXPECT_EQ(first(kMax, {-1}), 5);
  EXPECT_EQ(first(kMax, {-1, kMin}), 6);
  EXPECT_EQ(first(kMax, {-1, kMin, kMax}), -1);
  EXPECT_EQ(first(5, {-1}), 4);
  EXPECT_EQ(first(5, {5, -1, 7}), 5);
  EXPECT_EQ(first(6, {kMax, kMin, -1}), 7);
  // A key that max_length leaves out must be in range too.
  EXPECT_EQ(first(5, {}, 1), 3);
}

TEST(FirstOutOfRangeFindsAKeyAnywhereAmongMany) {
  constexpr int64_t kKeys = 3000;
  for (const int64_t input_dim : {int64_t{1}, int64_t{2}, int64_t{1} << 31, kMax}) {
    std::vector<int64_t> keys(kKeys);
    for (int64_t i = 0; i < kKeys; ++i) keys[i] = i % 2 == 0 ? 0 : input_dim - 1;
    const auto first = [&](int64_t n, std::vector<int64_t> skipped = {}) {
      return FirstOutOfRange({"f", keys.data(), n, 1, n, nullptr, skipped, -1, input_dim});
    };
    EXPECT_EQ(first(kKeys), -1);
    std::vector<int64_t> outside = {-1, kMin, kMin + 1};
    if (input_dim < kMax) outside.insert(outside.end(), {input_dim, kMax});
    for (const int64_t wrong : outside) {
      for (const int64_t at : {0, 1, 1022, 1023, 1024, 2047, 2048, 2999}) {
        const int64_t right = std::exchange(keys[at], wrong);
        EXPECT_EQ(first(kKeys), at);
        EXPECT_EQ(first(at + 1), at);
        EXPECT_EQ(first(at), -1);
        EXPECT_EQ(first(kKeys, {wrong}), -1);
        const int64_t later = std::exchange(keys[2999], -5);
        EXPECT_EQ(first(kKeys, {wrong}), 2999);
        keys[2999] = later;
        keys[at] = right;
      }
    }
    keys[1500] = keys[700] = -7;
    EXPECT_EQ(first(kKeys), 700);
  }
}

}  // namespace
}  // namespace testing
}  // namespace sparse_emb
