#include "cc/lib/initial_row.h"

#include <cmath>
#include <iterator>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "tests/cc/keys.h"
#include "tests/cc/testing.h"

namespace sparse_emb {
namespace testing {
namespace {

// The header's formulas once more, one element at a time.
uint64_t NaiveMix64(uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9ull;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebull;
  x ^= x >> 31;
  return x;
}

uint64_t NaiveBits(int64_t seed, int64_t key, int64_t d) {
  const uint64_t s = NaiveMix64(static_cast<uint64_t>(seed) + 0x9e3779b97f4a7c15ull);
  const uint64_t base = NaiveMix64(NaiveMix64(static_cast<uint64_t>(key)) + s);
  return NaiveMix64(base + static_cast<uint64_t>(d + 1) * 0x9e3779b97f4a7c15ull);
}

float NaiveUniform(uint64_t z, float min, float max) {
  const float u = static_cast<float>(static_cast<int32_t>(z >> 40) - 8388608) / 8388608.0f;
  const float middle = static_cast<float>((static_cast<double>(max) + min) / 2);
  const float half_width = static_cast<float>((static_cast<double>(max) - min) / 2);
  const float product = half_width * u;
  return middle + product;
}

double NaiveNormal(uint64_t z, double mean, double stddev) {
  const double u1 = (static_cast<double>(z >> 40) + 1) / 16777216.0;
  const double u2 = static_cast<double>((z >> 16) % 16777216) / 16777216.0;
  return mean + stddev * std::sqrt(-2 * std::log(u1)) * std::cos(2 * M_PI * u2);
}

// The x with erf(x) == y, by bisection.
double NaiveErfInv(double y) {
  double low = -2, high = 2;
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    (std::erf(middle) < y ? low : high) = middle;
  }
  return low;
}

double NaiveTruncatedNormal(uint64_t z, double mean, double stddev) {
  const double v = (static_cast<double>(z >> 40) + 0.5) / 8388608.0 - 1;
  return mean + stddev * std::sqrt(2.0) * NaiveErfInv(std::erf(std::sqrt(2.0)) * v);
}

InitialRow MakeInitialRow(const std::string& kind, float a, float b, int64_t seed) {
  InitialRow initial_row;
  EXPECT_OK(InitialRow::Make(kind, a, b, seed, &initial_row));
  return initial_row;
}

std::vector<float> Row(const InitialRow& initial_row, int64_t key, int64_t dim) {
  std::vector<float> row(dim);
  initial_row.Fill(key, row.data(), dim);
  return row;
}

// The key whose element 0 has these bits under this seed.
int64_t KeyOfBits(uint64_t z, int64_t seed) {
  const uint64_t base = UndoMix64(z) - 0x9e3779b97f4a7c15ull;
  return static_cast<int64_t>(
      UndoMix64(UndoMix64(base) - NaiveMix64(seed + 0x9e3779b97f4a7c15ull)));
}

const int64_t kSeeds[] = {0, 1, -1, 42, std::numeric_limits<int64_t>::min()};

// Calls test(seed, key): hard keys, and those whose first element is at an end of its range.
template <class Fn>
void ForEachSeedAndKey(const Fn& test) {
  for (int64_t seed : kSeeds) {
    for (int64_t key : HardKeys(100)) test(seed, key);
    for (uint64_t top : {0x000000, 0x000001, 0x7fffff, 0x800000, 0x800001, 0xfffffe, 0xffffff}) {
      for (uint64_t low : {0x0000000000ull, 0x8000000000ull, 0xffffffffffull}) {
        const int64_t key = KeyOfBits(top << 40 | low, seed);
        EXPECT_EQ(NaiveBits(seed, key, 0), top << 40 | low);
        test(seed, key);
      }
    }
  }
}

TEST(ConstantRowsAreTheConstant) {
  ForEachSeedAndKey([](int64_t seed, int64_t key) {
    EXPECT_EQ(Row(MakeInitialRow("constant", 0.3f, 9.0f, seed), key, 17),
              std::vector<float>(17, 0.3f));
  });
}

TEST(UniformRowsAreTheFormulaBitByBit) {
  const float kRanges[][2] = {{-0.05f, 0.05f}, {0, 1}, {-3, 17.3f}, {0.1f, 0.1f}, {-3e38f, 3e38f}};
  for (const auto& [min, max] : kRanges) {
    ForEachSeedAndKey([min = min, max = max](int64_t seed, int64_t key) {
      const std::vector<float> row = Row(MakeInitialRow("uniform", min, max, seed), key, 37);
      std::vector<float> want(37);
      for (int64_t d = 0; d < 37; ++d) want[d] = NaiveUniform(NaiveBits(seed, key, d), min, max);
      EXPECT_EQ(row, want);
      for (float value : row) EXPECT_TRUE(value >= min && value <= max);
    });
  }
}

TEST(NormalRowsAreTheFormulaTo1e6) {
  ForEachSeedAndKey([](int64_t seed, int64_t key) {
    const std::vector<float> normal = Row(MakeInitialRow("normal", 0.5f, 2.0f, seed), key, 9);
    const std::vector<float> truncated =
        Row(MakeInitialRow("truncated_normal", 0.5f, 2.0f, seed), key, 9);
    for (int64_t d = 0; d < 9; ++d) {
      const uint64_t z = NaiveBits(seed, key, d);
      EXPECT_NEAR(normal[d], NaiveNormal(z, 0.5, 2.0), 1e-6);
      EXPECT_NEAR(truncated[d], NaiveTruncatedNormal(z, 0.5, 2.0), 1e-6);
      EXPECT_LE(std::abs(truncated[d] - 0.5), 4.0);
    }
  });
}

TEST(MomentsAreThoseOfTheDistribution) {
  struct Case {
    const char* kind;
    float a, b;
    double mean, variance, kurtosis;
  };
  // A normal truncated at two deviations has the variance 1 - 4 phi(2) / (2 Phi(2) - 1) = .7737.
  const Case kCases[] = {{"uniform", -1, 3, 1, 16 / 12.0, 1.8},
                         {"normal", 1, 2, 1, 4, 3},
                         {"truncated_normal", 1, 2, 1, 4 * 0.773741, 2.3655}};
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.kind);
    const InitialRow initial_row = MakeInitialRow(c.kind, c.a, c.b, 1);
    const int64_t keys = 20000, dim = 16, n = keys * dim;
    double sum = 0, squares = 0, fourths = 0, products = 0;
    for (int64_t key = 0; key < keys; ++key) {
      const std::vector<float> row = Row(initial_row, key, dim);
      for (int64_t d = 0; d < dim; ++d) {
        const double x = row[d] - c.mean;
        sum += x;
        squares += x * x;
        fourths += x * x * x * x;
        products += x * (row[(d + 1) % dim] - c.mean);
      }
    }
    const double stddev = std::sqrt(c.variance);
    EXPECT_NEAR(sum / n, 0, 4 * stddev / std::sqrt(n));
    EXPECT_NEAR(squares / n / c.variance, 1, 0.01);
    EXPECT_NEAR(fourths / n / (c.variance * c.variance), c.kurtosis, 0.03);
    EXPECT_NEAR(products / n / c.variance, 0, 0.01);
  }
}

TEST(DifferentKeysGetDifferentRows) {
  for (const char* kind : {"uniform", "normal", "truncated_normal"}) {
    for (int64_t seed : kSeeds) {
      const InitialRow initial_row = MakeInitialRow(kind, -1, 1, seed);
      std::set<std::vector<float>> rows;
      const std::vector<int64_t> keys = HardKeys(1000);
      for (int64_t key : keys) rows.insert(Row(initial_row, key, 4));
      EXPECT_EQ(rows.size(), keys.size());
    }
  }
}

TEST(DifferentSeedsGiveAKeyDifferentRows) {
  for (int64_t key : HardKeys(1000)) {
    std::set<std::vector<float>> rows;
    for (int64_t seed : kSeeds) rows.insert(Row(MakeInitialRow("uniform", -1, 1, seed), key, 4));
    EXPECT_EQ(rows.size(), std::size(kSeeds));
  }
}

// A wide row begins as the narrow one: d alone chooses the element.
TEST(AnElementDoesNotDependOnTheWidth) {
  for (const char* kind : {"constant", "uniform", "normal", "truncated_normal"}) {
    const InitialRow initial_row = MakeInitialRow(kind, -1, 1, 3);
    const std::vector<float> wide = Row(initial_row, 5, 100);
    for (int64_t dim : {1, 3, 16, 17, 64}) {
      EXPECT_EQ(Row(initial_row, 5, dim), std::vector<float>(wide.begin(), wide.begin() + dim));
    }
  }
}

TEST(MakeInitialRowNamesABadArgument) {
  InitialRow out;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const auto make = [&](const char* kind, float a, float b) {
    return InitialRow::Make(kind, a, b, 0, &out);
  };
  EXPECT_ERROR(make("uniform", 1, 0), Code::kInvalidArgument,
               "uniform needs min <= max, got min 1 and max 0");
  EXPECT_ERROR(make("uniform", nan, 0), Code::kInvalidArgument,
               "uniform needs finite arguments, got nan and 0");
  EXPECT_ERROR(make("normal", 0, -1), Code::kInvalidArgument, "normal needs stddev >= 0, got -1");
  EXPECT_ERROR(make("truncated_normal", 0, nan), Code::kInvalidArgument,
               "truncated_normal needs finite arguments, got 0 and nan");
  EXPECT_ERROR(make("orthogonal", 0, 1), Code::kInvalidArgument,
               "must be constant, uniform, normal or truncated_normal, got orthogonal");
}

}  // namespace
}  // namespace testing
}  // namespace sparse_emb
