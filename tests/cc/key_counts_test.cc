// What a table counts for its keys.
#include "cc/lib/key_counts.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "tests/cc/keys.h"
#include "tests/cc/table_model.h"
#include "tests/cc/testing.h"

namespace sparse_emb {
namespace testing {
namespace {

constexpr int64_t kDim = 3;
const RuleCall kSgd{"sgd", {1.0f, 0.0f}, 1};

// The counts of one row, between floats that must stay as they are.
class OneRow {
 public:
  explicit OneRow(const KeyCounts& counts)
      : counts_(counts), row_(1 + counts.floats() + kGuards, kGuard) {
    counts_.SetZero(at(), 0);
  }
  void Set(int64_t step, const std::vector<double>& counts) {
    counts_.Set(at(), step, counts.data());
  }
  void Add(int64_t step, const std::vector<double>& amounts) {
    counts_.Add(at(), step, amounts.data());
  }
  std::vector<double> Get(int64_t step) {
    std::vector<double> out(counts_.width);
    counts_.Get(at(), step, out.data());
    EXPECT_EQ(row_.front(), kGuard);
    EXPECT_EQ(std::count(row_.end() - kGuards, row_.end(), kGuard), kGuards);
    return out;
  }
  const std::vector<float>& row() const { return row_; }

 private:
  static constexpr float kGuard = 77.0f;
  static constexpr int64_t kGuards = 4;
  float* at() { return row_.data() + 1; }
  const KeyCounts counts_;
  std::vector<float> row_;
};

TEST(CountsAreExactBeyond2To24) {
  for (double decay : {1.0, 0.5}) {
    OneRow row({2, decay});
    row.Set(3, {0x1p24, 0x1p53 - 100});
    for (int i = 0; i < 99; ++i) row.Add(3, {1, 1});
    EXPECT_EQ(row.Get(3), std::vector<double>({0x1p24 + 99, 0x1p53 - 1}));
  }
}

TEST(WithoutCountsARowHasNoRoomForThem) {
  EXPECT_EQ((KeyCounts{0, 1.0}.floats()), 0);
  EXPECT_EQ((KeyCounts{0, 0.5}.floats()), 0);
  EXPECT_EQ((KeyCounts{1, 1.0}.floats()), 4);
  EXPECT_EQ((KeyCounts{5, 0.5}.floats()), 12);
  OneRow row({0, 0.5});
  row.Set(7, {5.0});
  EXPECT_EQ(row.Get(9).size(), size_t{0});
}

TEST(AddingNothingToNoCountsWritesNothing) {
  OneRow row({0, 1.0});
  row.Add(7, {});
  EXPECT_EQ(row.Get(9).size(), size_t{0});
}

// sum_t n_t decay^(T - t), whenever it is read and however often.
TEST(CountsDecayByTheFormula) {
  for (double decay : {1.0, 0.999, 0.9, 0.5, 0.01}) {
    for (int64_t width : {1, 2, 5}) {
      SCOPED_TRACE("decay ", decay, ", ", width, " counts");
      Random random(width);
      OneRow row({width, decay});
      std::vector<std::pair<int64_t, std::vector<double>>> events;
      int64_t step = 0;
      for (int i = 0; i < 300; ++i) {
        step += random.OneIn(3) ? 0 : random.Below(random.OneIn(10) ? 200 : 4);
        if (random.OneIn(2)) {
          std::vector<double> amounts;
          for (int64_t k = 0; k < width; ++k) amounts.push_back(random.Below(100) / 4.0 - 5);
          row.Add(step, amounts);
          events.emplace_back(step, amounts);
        }
        const int64_t now = step + random.Below(3);  // a read does not move the row to its step
        const std::vector<float> before = row.row();
        const std::vector<double> got = row.Get(now);
        EXPECT_EQ(row.row(), before);
        for (int64_t k = 0; k < width; ++k) {
          double want = 0, size = 0;
          for (const auto& [t, amounts] : events) {
            want += amounts[k] * std::pow(decay, now - t);
            size += std::abs(amounts[k]) * std::pow(decay, now - t);
          }
          EXPECT_NEAR(got[k], want, 1e-12 * size + 1e-300);
        }
      }
    }
  }
}

class CountingTable {
 public:
  explicit CountingTable(const std::string& storage, KeyCounts key_counts) {
    TableOptions options = UniformTable(storage, kDim, 100000);
    options.key_counts = key_counts;
    table = NewTable(options);
  }
  void Insert(const std::vector<int64_t>& keys) {
    std::vector<float> out(keys.size() * kDim);
    EXPECT_OK(table->Lookup(keys.data(), keys.size(), true, Missing::kZeros, out.data(), &pool));
  }
  Status Count(const std::vector<int64_t>& keys, const std::vector<double>& amounts) {
    return table->Count(keys.data(), amounts.data(), keys.size(), false, &pool);
  }
  std::vector<double> Get(const std::vector<int64_t>& keys) {
    std::vector<double> out(keys.size() * table->options().key_counts.width, -9.0);
    EXPECT_OK(table->GetCounts(keys.data(), keys.size(), out.data(), &pool));
    return out;
  }
  void Bind(const std::string& rule, std::vector<float> state) {
    int64_t token = 0;
    EXPECT_OK(table->Bind(rule, std::move(state), &pool, &token));
  }
  Status Update(const std::vector<int64_t>& keys) {
    const std::vector<float> grads(keys.size() * kDim, 0.5f);
    return table->Update(keys.data(), grads.data(), keys.size(), kSgd, 0, false, &pool);
  }

  SerialPool pool;
  std::unique_ptr<Table> table;
};

TEST(ATableCountsBeyond2To24) {
  for (const std::string storage : kAllStorages) {
    SCOPED_TRACE(storage);
    CountingTable counting(storage, {1, 1.0});
    counting.Insert({8});
    EXPECT_OK(counting.Count({8}, {0x1p24}));
    for (int i = 0; i < 5; ++i) EXPECT_OK(counting.Count({8}, {1}));
    EXPECT_EQ(counting.Get({8}), std::vector<double>({0x1p24 + 5}));
  }
}

// A key that is not in the table is passed over, and begins at zero when it comes.
TEST(OnlyKeysInTheTableAreCounted) {
  for (const std::string storage : kAllStorages) {
    SCOPED_TRACE(storage);
    CountingTable counting(storage, {2, 1.0});
    counting.Insert({5, 7});
    EXPECT_OK(counting.Count({5, 6, 7}, {1, 10, 2, 20, 3, 30}));
    EXPECT_EQ(counting.table->Size(), 2);
    EXPECT_EQ(counting.Get({7, 6, 5, 7}), std::vector<double>({3, 30, 0, 0, 1, 10, 3, 30}));
    counting.Insert({6});
    EXPECT_EQ(counting.Get({6}), std::vector<double>({0, 0}));
    const int64_t gone = 5;
    EXPECT_OK(counting.table->Remove(&gone, 1, &counting.pool));
    EXPECT_EQ(counting.Get({5}), std::vector<double>({0, 0}));
    counting.Insert({5});
    EXPECT_EQ(counting.Get({5, 7}), std::vector<double>({0, 0, 3, 30}));
    EXPECT_OK(counting.Count({}, {}));
    EXPECT_EQ(counting.Get({}), std::vector<double>());
  }
}

// Growth of the table, other rules, lookups and what sets embeddings leave the counts alone.
TEST(CountsStayWithTheirKeys) {
  for (const std::string storage : kAllStorages) {
    SCOPED_TRACE(storage);
    CountingTable counting(storage, {1, 1.0});
    const std::vector<int64_t> keys = {3, 99999, 12345};
    const std::vector<double> amounts = {5, 6, 0x1p30 + 1};
    counting.Insert(keys);
    EXPECT_OK(counting.Count(keys, amounts));
    counting.Bind("row_wise_adam", std::vector<float>(kDim + 1, 0.5f));
    EXPECT_EQ(counting.Get(keys), amounts);
    counting.Insert(DenseKeys(20000));
    EXPECT_EQ(counting.Get(keys), amounts);
    const std::vector<float> rows(3 * kDim, 4.0f);
    EXPECT_OK(counting.table->Upsert(keys.data(), rows.data(), 3, &counting.pool));
    EXPECT_OK(counting.table->ScatterAdd(keys.data(), rows.data(), 3, &counting.pool));
    counting.Bind("sgd", {});
    EXPECT_OK(counting.Update(keys));
    std::vector<int64_t> others = DenseKeys(20000);
    others.erase(others.begin() + 12345);
    others.erase(others.begin() + 3);
    EXPECT_OK(counting.table->Remove(others.data(), others.size(), &counting.pool));
    EXPECT_EQ(counting.Get(keys), amounts);
    EXPECT_EQ(ExportRows(counting.table.get(), false).at(3), std::vector<float>(kDim, 7.5f));
    counting.table->Clear();
    counting.Insert(keys);
    EXPECT_EQ(counting.Get(keys), std::vector<double>(3));
  }
}

// The step of the counts is the number of updates, of any keys or none; failed ones are none.
TEST(CountsDecayWithEveryUpdate) {
  for (const std::string storage : kAllStorages) {
    SCOPED_TRACE(storage);
    CountingTable counting(storage, {1, 0.5});
    counting.Insert({1, 2});
    EXPECT_ERROR(counting.Update({1}), Code::kFailedPrecondition, "is bound to no optimizer");
    counting.Bind("sgd", {});
    EXPECT_OK(counting.Count({1, 2}, {64, 32}));
    EXPECT_OK(counting.Update({1}));
    EXPECT_EQ(counting.Get({1, 2}), std::vector<double>({32, 16}));
    EXPECT_OK(counting.Count({2}, {1}));
    EXPECT_OK(counting.Update({50}));
    EXPECT_OK(counting.Update({}));
    EXPECT_ERROR(counting.Update({1, 1}), Code::kInvalidArgument, "keys must differ");
    EXPECT_EQ(counting.Get({1, 2, 50}), std::vector<double>({8, 17.0 / 4, 0}));
    EXPECT_OK(counting.Count({50}, {3}));
    EXPECT_OK(counting.Update({1}));
    EXPECT_EQ(counting.Get({1, 2, 50}), std::vector<double>({4, 17.0 / 8, 1.5}));
  }
}

TEST(ATableWithoutCountsCountsNothing) {
  for (const std::string storage : kAllStorages) {
    SCOPED_TRACE(storage);
    CountingTable counting(storage, {});
    counting.Bind("row_wise_adagrad", {0.5f});
    const std::vector<int64_t> keys = DenseKeys(1000);
    counting.Insert(keys);
    const Rows before = ExportRows(counting.table.get(), true);
    EXPECT_OK(counting.Count(keys, {}));
    EXPECT_EQ(counting.Get(keys), std::vector<double>());
    ExpectSameRows(ExportRows(counting.table.get(), true), before);
  }
}

}  // namespace
}  // namespace testing
}  // namespace sparse_emb
