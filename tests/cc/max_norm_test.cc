// max_norm: its norms against double precision, and lookups that bound rows.
#include "cc/lib/max_norm.h"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "tests/cc/table_model.h"
#include "tests/cc/testing.h"

namespace sparse_emb {
namespace testing {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
const float kPowers[] = {2.0f, 1.0f, kInfinity, 0.5f, 3.0f, 1.5f};

double NormOf(const std::vector<float>& row, double p) {
  double sum = 0, greatest = 0;
  for (float value : row) {
    sum += std::pow(std::abs(static_cast<double>(value)), p);
    greatest = std::max(greatest, std::abs(static_cast<double>(value)));
  }
  return std::isinf(p) ? greatest : std::pow(sum, 1 / p);
}

float ScaleOf(const std::vector<float>& row, float limit, float p) {
  return MaxNorm{limit, p}.ScaleOf(row.data(), row.size());
}

std::vector<float> Times(float factor, std::vector<float> row) {
  for (float& value : row) value *= factor;
  return row;
}

TEST(ScalesAreThoseOfNormsInDoublePrecision) {
  Random random(1);
  for (float p : kPowers) {
    for (int64_t dim : {1, 2, 3, 15, 16, 17, 64, 100, 300}) {
      for (float size : {1e-15f, 1e-3f, 1.0f, 1e3f, 1e15f}) {
        SCOPED_TRACE("p ", p, ", dim ", dim, ", elements of size ", size);
        const std::vector<float> row = Times(size, random.Floats(dim));
        const double norm = NormOf(row, p);
        for (double part : {0.001, 0.5, 0.99, 1.01, 1000.0}) {
          const float limit = static_cast<float>(part * norm);
          const double want = part > 1 ? 1 : limit / (norm + 1e-7);
          EXPECT_NEAR(ScaleOf(row, limit, p), want, 1e-5 * want);
        }
      }
    }
  }
}

// The squares of 1e25 and the sums of 3e38 are beyond a float, the squares of 1e-25 below one.
TEST(ScalesOfTheLongestAndShortestRowsAreThoseInDoublePrecision) {
  Random random(3);
  for (float p : kPowers) {
    for (int64_t dim : {1, 2, 17, 64, 300}) {
      for (float size : {1e-38f, 1e-25f, 1e18f, 1e19f, 1e25f, 3e38f}) {
        SCOPED_TRACE("p ", p, ", dim ", dim, ", elements of size ", size);
        const std::vector<float> row = Times(size, random.Floats(dim));
        const double norm = NormOf(row, p);
        for (float limit : {1e-36f, 1e-20f, 0.5f, 1e20f, 3e38f}) {
          const double want = norm > limit ? limit / (norm + 1e-7) : 1.0;
          if (std::abs(norm / limit - 1) < 1e-4 || want < 1e-36) continue;
          EXPECT_NEAR(ScaleOf(row, limit, p), want, 1e-5 * want);
        }
      }
    }
  }
}

struct KnownNorm {
  std::vector<float> row;
  float p, norm;
};

// Whole numbers whose norms are whole.
const KnownNorm kKnownNorms[] = {
    {{3, -4}, 2, 5},       {{-2, 3, 6, 0}, 2, 7},   {{1, 4, -8}, 2, 9},   {{3, -4}, 1, 7},
    {{-1, 2, -3}, 1, 6},   {{3, -4}, kInfinity, 4}, {{-9}, kInfinity, 9}, {{1, -4}, 0.5, 9},
    {{4, 9, -1}, 0.5, 36}, {{3, 4, -5}, 3, 6},      {{1, -6, 8}, 3, 9},   {{-18, 19, 21}, 3, 28},
};

TEST(ARowExactlyAtTheLimitIsLeftAlone) {
  for (const KnownNorm& known : kKnownNorms) {
    SCOPED_TRACE("p ", known.p, ", norm ", known.norm);
    EXPECT_EQ(ScaleOf(known.row, known.norm, known.p), 1.0f);
    EXPECT_EQ(ScaleOf(known.row, std::nextafter(known.norm, kInfinity), known.p), 1.0f);
    EXPECT_LE(ScaleOf(known.row, 0.999999f * known.norm, known.p), 0.9999999);
  }
}

// For every p the norm of one element is its size.
TEST(ARowOfOneElementAtTheLimitIsLeftAlone) {
  Random random(2);
  for (float p : kPowers) {
    SCOPED_TRACE("p ", p);
    for (int i = 0; i < 1000; ++i) {
      const float value = 10 * random.Float();
      EXPECT_EQ(ScaleOf({value}, std::abs(value), p), 1.0f);
    }
  }
}

TEST(AScaledRowIsWithinTheLimit) {
  Random random(3);
  for (float p : kPowers) {
    for (int64_t dim : {1, 3, 17, 64}) {
      SCOPED_TRACE("p ", p, ", dim ", dim);
      const std::vector<float> row = Times(20.0f, random.Floats(dim));
      for (float limit : {0.01f, 1.0f, 5.0f}) {
        const float scale = ScaleOf(row, limit, p);
        EXPECT_LE(NormOf(Times(scale, row), p), limit * 1.00001);
      }
    }
  }
}

TEST(RowsWithoutANormAreLeftAlone) {
  for (float p : kPowers) {
    EXPECT_EQ(ScaleOf({0.0f, -0.0f, 0.0f}, 1e-30f, p), 1.0f);
    // Nothing times anything makes a NaN finite, so all of the row stays for who looks for it.
    EXPECT_EQ(ScaleOf({1.0f, NAN, 2.0f}, 1.0f, 2.0f), 1.0f);
  }
  EXPECT_TRUE(!MaxNorm().enabled());
  const MaxNorm one{1.0f, 2.0f};
  EXPECT_TRUE(one.enabled());
}

// A table on which keys 0 and 1 have rows of norm 5 and 10, beyond the limit of 5 for the one.
class BoundedTable {
 public:
  explicit BoundedTable(const std::string& storage) {
    TableOptions options = UniformTable(storage, 2, 100);
    options.max_norm.limit = 5;
    table_ = NewTable(options);
    EXPECT_OK(table_->Bind("row_wise_adagrad", {0.5f}, &pool_, &token_));
    const int64_t keys[] = {0, 1};
    const float rows[] = {3, 4, -6, 8};
    EXPECT_OK(table_->Upsert(keys, rows, 2, &pool_));
  }

  std::vector<float> Lookup(const std::vector<int64_t>& keys, bool insert) {
    std::vector<float> out(keys.size() * 2);
    EXPECT_OK(
        table_->Lookup(keys.data(), keys.size(), insert, Missing::kZeros, out.data(), &pool_));
    return out;
  }
  Rows Export() { return ExportRows(table_.get(), true); }

 private:
  SerialPool pool_;
  std::unique_ptr<Table> table_;
  int64_t token_ = 0;
};

TEST(OnlyALookupThatInsertsBoundsRowsInTheTable) {
  const Rows before = {{0, {3, 4, 0.5f}}, {1, {-6, 8, 0.5f}}};
  for (const std::string storage : kAllStorages) {
    SCOPED_TRACE(storage);
    BoundedTable table(storage);
    ExpectSameRows(table.Export(), before);
    const float scale = 5.0f / (10.0f + 1e-7f);
    const std::vector<float> bounded = {-6 * scale, 8 * scale};
    const std::vector<float> want = {bounded[0], bounded[1], 3, 4, 0, 0, bounded[0], bounded[1]};
    EXPECT_EQ(table.Lookup({1, 0, 50, 1}, false), want);
    ExpectSameRows(table.Export(), before);
    EXPECT_EQ(table.Lookup({0, 0}, true), std::vector<float>({3, 4, 3, 4}));
    ExpectSameRows(table.Export(), before);
    EXPECT_EQ(table.Lookup({1, 0, 1}, true),
              std::vector<float>({bounded[0], bounded[1], 3, 4, bounded[0], bounded[1]}));
    const Rows after = {{0, {3, 4, 0.5f}}, {1, {bounded[0], bounded[1], 0.5f}}};
    ExpectSameRows(table.Export(), after);
  }
}

// Initial rows too are bounded: those of new keys in the table, those of absent ones in the output.
TEST(InitialRowsBeyondTheLimitAreBounded) {
  SerialPool pool;
  for (const std::string storage : kAllStorages) {
    SCOPED_TRACE(storage);
    TableOptions options = UniformTable(storage, 2, 100);
    options.max_norm = {1.0f, kInfinity};
    EXPECT_OK(InitialRow::Make("constant", 4.0f, 0.0f, 0, &options.initial_row));
    const auto table = NewTable(options);
    const int64_t key = 7;
    const float bounded = 4 * (1.0f / (4.0f + 1e-7f));
    for (bool insert : {false, true}) {
      std::vector<float> out(2);
      EXPECT_OK(table->Lookup(&key, 1, insert, Missing::kInitial, out.data(), &pool));
      EXPECT_EQ(out, std::vector<float>({bounded, bounded}));
      EXPECT_EQ(table->Size(), insert ? 1 : 0);
    }
    ExpectSameRows(ExportRows(table.get(), false), {{7, {bounded, bounded}}});
  }
}

}  // namespace
}  // namespace testing
}  // namespace sparse_emb
