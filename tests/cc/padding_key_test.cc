// The padding key reads as zeros; only Upsert, ScatterAdd and Restore make its row, and no update
// changes it.
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "tests/cc/table_model.h"
#include "tests/cc/testing.h"

namespace sparse_emb {
namespace testing {
namespace {

constexpr int64_t kDim = 2;
const RuleCall kAdagrad{"row_wise_adagrad", {1.0f, 0.0f, 0.0f}, 1};
using Floats = std::vector<float>;

// A table under row-wise Adagrad, all of whose rows begin at 3 but for the padding key's.
class PaddedTable {
 public:
  explicit PaddedTable(TableOptions options) {
    EXPECT_OK(InitialRow::Make("constant", 3.0f, 0.0f, 0, &options.initial_row));
    table = NewTable(options);
    EXPECT_OK(table->Bind("row_wise_adagrad", {0.5f}, &pool, &token));
  }

  Floats Lookup(const std::vector<int64_t>& keys, bool insert, Missing missing) {
    Floats out(keys.size() * kDim, -9.0f);
    EXPECT_OK(table->Lookup(keys.data(), keys.size(), insert, missing, out.data(), &pool));
    return out;
  }
  void Update(const std::vector<int64_t>& keys) {
    const Floats grads(keys.size() * kDim, 2.0f);
    EXPECT_OK(table->Update(keys.data(), grads.data(), keys.size(), kAdagrad, token, false, &pool));
  }
  void Upsert(int64_t key, const Floats& row) {
    EXPECT_OK(table->Upsert(&key, row.data(), 1, &pool));
  }
  void ScatterAdd(int64_t key, const Floats& delta) {
    EXPECT_OK(table->ScatterAdd(&key, delta.data(), 1, &pool));
  }
  Rows Export() { return ExportRows(table.get(), true); }

  SerialPool pool;
  int64_t token = 0;
  std::unique_ptr<Table> table;
};

void OnEveryStorage(const std::function<void(const TableOptions&, int64_t padding)>& test) {
  for (const std::string storage : kAllStorages) {
    for (int64_t key : {int64_t{0}, int64_t{99}, int64_t{-1}, INT64_MIN}) {
      const bool index = storage == "index";
      if (index && key < 0) continue;
      SCOPED_TRACE(storage, ", padding key ", key);
      TableOptions options = UniformTable(storage, kDim, index ? 100 : -1);
      options.padding_key = key;
      test(options, key);
    }
  }
}

TEST(AnAbsentPaddingKeyReadsAsZerosAndStaysAbsent) {
  OnEveryStorage([](const TableOptions& options, int64_t padding) {
    PaddedTable table(options);
    for (bool insert : {false, true}) {
      for (Missing missing : {Missing::kZeros, Missing::kInitial}) {
        EXPECT_EQ(table.Lookup({padding}, insert, missing), Floats({0, 0}));
        EXPECT_EQ(table.table->Size(), 0);
      }
    }
    EXPECT_EQ(table.Lookup({padding, 5, padding, 6}, true, Missing::kInitial),
              Floats({0, 0, 3, 3, 0, 0, 3, 3}));
    EXPECT_EQ(table.Lookup({5, padding}, true, Missing::kInitial), Floats({3, 3, 0, 0}));
    EXPECT_EQ(table.table->Size(), 2);
    bool found = true;
    EXPECT_OK(table.table->Contains(&padding, 1, &found, &table.pool));
    EXPECT_TRUE(!found);
  });
}

TEST(UpdatesPassThePaddingKeyOver) {
  OnEveryStorage([](const TableOptions& options, int64_t padding) {
    PaddedTable table(options);
    table.Update({padding});
    EXPECT_EQ(table.table->Size(), 0);
    // a = 0.5 + 4, w = 3 - 2 / sqrt(4.5)
    const float updated = 3 - 1 / std::sqrt(4.5f) * 2;
    table.Update({4, padding, 7});
    ExpectSameRows(table.Export(), {{4, {updated, updated, 4.5f}}, {7, {updated, updated, 4.5f}}});
    table.Upsert(padding, {8, 9});
    table.Update({padding, 50});
    const Rows rows = table.Export();
    EXPECT_EQ(rows.size(), size_t{4});
    EXPECT_EQ(rows.at(padding), Floats({8, 9, 0.5f}));
    EXPECT_EQ(rows.at(50), Floats({updated, updated, 4.5f}));
  });
}

TEST(APaddingRowIsMadeByHandAlone) {
  OnEveryStorage([](const TableOptions& options, int64_t padding) {
    PaddedTable table(options);
    table.ScatterAdd(padding, {1, 2});  // to zeros, not to the initial row of others
    ExpectSameRows(table.Export(), {{padding, {1, 2, 0.5f}}});
    table.ScatterAdd(padding, {0.5f, 0});
    EXPECT_EQ(table.Lookup({padding, 5}, false, Missing::kInitial), Floats({1.5f, 2, 3, 3}));
    table.Upsert(padding, {-4, 6});
    EXPECT_EQ(table.Lookup({padding, padding}, true, Missing::kZeros), Floats({-4, 6, -4, 6}));
    EXPECT_OK(table.table->Remove(&padding, 1, &table.pool));
    EXPECT_EQ(table.Lookup({padding}, true, Missing::kInitial), Floats({0, 0}));
    EXPECT_EQ(table.table->Size(), 0);
    Content content{{padding}, {7, 8, 1.5f}, {}, kDim + 1, 0, "row_wise_adagrad"};
    EXPECT_OK(table.table->Restore(content.view(), content.rule, &table.pool));
    ExpectSameRows(table.Export(), content.RowsByKey());
  });
}

TEST(AnAbsentPaddingKeyTakesNoRowOfAFullTable) {
  OnEveryStorage([](TableOptions options, int64_t padding) {
    options.max_rows = 2;
    PaddedTable table(options);
    EXPECT_EQ(table.Lookup({4, padding, 5}, true, Missing::kInitial), Floats({3, 3, 0, 0, 3, 3}));
    EXPECT_EQ(table.Lookup({padding, 4}, true, Missing::kInitial), Floats({0, 0, 3, 3}));
    table.Update({4, padding, 5});
    const Floats row(kDim);
    EXPECT_ERROR(table.table->Upsert(&padding, row.data(), 1, &table.pool),
                 Code::kResourceExhausted, "cannot take 1 more");
    EXPECT_EQ(table.table->Size(), 2);
  });
}

TEST(ALookupBoundsTheNormOfAPaddingRowAsOfAnyOther) {
  OnEveryStorage([](TableOptions options, int64_t padding) {
    options.max_norm.limit = 5;
    PaddedTable table(options);
    table.Upsert(padding, {6, 8});
    const float scale = 5.0f / (10.0f + 1e-7f);
    const Floats bounded({6 * scale, 8 * scale});
    EXPECT_EQ(table.Lookup({padding}, false, Missing::kZeros), bounded);
    ExpectSameRows(table.Export(), {{padding, {6, 8, 0.5f}}});
    EXPECT_EQ(table.Lookup({padding}, true, Missing::kZeros), bounded);
    ExpectSameRows(table.Export(), {{padding, {bounded[0], bounded[1], 0.5f}}});
  });
}

// Not even where it has a row; what a restore brings is kept.
TEST(ThePaddingKeyIsNotCounted) {
  OnEveryStorage([](TableOptions options, int64_t padding) {
    options.key_counts.width = 1;
    PaddedTable table(options);
    const int64_t keys[] = {padding, 5};
    const double amounts[] = {7, 8};
    double counts[2];
    table.Lookup({5}, true, Missing::kZeros);
    for (int i = 1; i <= 2; ++i) {
      EXPECT_OK(table.table->Count(keys, amounts, 2, false, &table.pool));
      EXPECT_OK(table.table->GetCounts(keys, 2, counts, &table.pool));
      EXPECT_EQ(counts[0], 0.0);
      EXPECT_EQ(counts[1], 8.0 * i);
      table.Upsert(padding, {1, 2});
    }
    Content content{{padding}, {1, 2}, {3}, kDim, 1, ""};
    EXPECT_OK(table.table->Restore(content.view(), "", &table.pool));
    EXPECT_OK(table.table->Count(keys, amounts, 1, false, &table.pool));
    EXPECT_OK(table.table->GetCounts(keys, 1, counts, &table.pool));
    EXPECT_EQ(counts[0], 3.0);
  });
}

}  // namespace
}  // namespace testing
}  // namespace sparse_emb
