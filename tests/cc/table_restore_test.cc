// Restore: a table becomes what another was. Its errors are table_errors_test.cc's.
#include <string>
#include <vector>

#include "tests/cc/keys.h"
#include "tests/cc/memory_limit.h"
#include "tests/cc/table_model.h"
#include "tests/cc/testing.h"

namespace sparse_emb {
namespace testing {
namespace {

constexpr int64_t kDim = 3, kInputDim = 3000;
const RuleCall kSgd{"sgd", {1.0f, 0.0f}, 1};
const RuleCall kAdagrad{"row_wise_adagrad", {1.0f, 1e-8f, 0.0f}, 1};

TableOptions CountingTable(const std::string& storage) {
  TableOptions options = UniformTable(storage, kDim, kInputDim);
  options.key_counts = {2, 0.5};
  return options;
}

void Bind(Table* table, const std::string& rule, float state = 0) {
  SerialPool pool;
  RuleInfo info;
  EXPECT_OK(FindRule(rule, &info));
  int64_t token = 0;
  EXPECT_OK(table->Bind(rule, std::vector<float>(info.state_width(table->options().dim), state),
                        &pool, &token));
}

void Insert(Table* table, const std::vector<int64_t>& keys) {
  SerialPool pool;
  std::vector<float> out(keys.size() * table->options().dim);
  EXPECT_OK(table->Lookup(keys.data(), keys.size(), true, Missing::kInitial, out.data(), &pool));
}

Content SomeContent(const std::vector<int64_t>& keys, int64_t width, const std::string& rule) {
  Content content{keys, Random(9).Floats(keys.size() * width), {}, width, 2, rule};
  for (size_t i = 0; i < 2 * keys.size(); ++i) content.counts.push_back(0.25 * i);
  return content;
}

void Restore(Table* table, Content content) {
  SerialPool pool;
  EXPECT_OK(table->Restore(content.view(), content.rule, &pool));
}

TEST(RestoreReplacesEverything) {
  for (const std::string storage : kAllStorages) {
    for (int threads : {1, 4}) {
      SCOPED_TRACE(storage, ", ", threads, " threads");
      StdThreadPool pool(threads);
      const auto table = NewTable(CountingTable(storage));
      Bind(table.get(), "row_wise_adagrad", 0.5f);
      Insert(table.get(), DenseKeys(2000));
      std::vector<int64_t> keys = DenseKeys(2000);
      for (int64_t& key : keys) key = key * 3 / 2;  // some old, some new, 500 of the old not there
      Content content = SomeContent(keys, kDim + 1, "row_wise_adagrad");
      EXPECT_OK(table->Restore(content.view(), content.rule, &pool));
      EXPECT_EQ(table->Size(), 2000);
      ExpectSameContent(ExportAll(table.get(), true), content);
      const int64_t old_key = 5;  // 3/2 of no whole number
      bool found = true;
      EXPECT_OK(table->Contains(&old_key, 1, &found, &pool));
      EXPECT_TRUE(!found);
    }
  }
}

TEST(RestoreOfNothingEmptiesTheTable) {
  SerialPool pool;
  for (const std::string storage : kAllStorages) {
    SCOPED_TRACE(storage);
    const auto table = NewTable(CountingTable(storage));
    Bind(table.get(), "row_wise_adagrad", 0.5f);
    Insert(table.get(), DenseKeys(1000));
    EXPECT_OK(table->Restore({nullptr, nullptr, nullptr, 0, kDim + 1}, "row_wise_adagrad", &pool));
    EXPECT_EQ(table->Size(), 0);
    EXPECT_LE(table->MemoryBytes(), 64 * 300);
    Insert(table.get(), {4});
    TableModel model(table->options());
    std::vector<float> want = model.Initial(4);
    want.push_back(0.5f);
    ExpectSameRows(ExportRows(table.get(), true), {{4, want}});
  }
}

TEST(WhatOneStorageExportsEveryOtherRestores) {
  for (const std::string from : kAllStorages) {
    const auto source = NewTable(CountingTable(from));
    Bind(source.get(), "row_wise_adam", 0.5f);
    Restore(source.get(), SomeContent(DenseKeys(700), 2 * kDim + 1, "row_wise_adam"));
    const Content content = ExportAll(source.get(), true);
    for (const std::string to : kAllStorages) {
      SCOPED_TRACE(from, " to ", to);
      const auto target = NewTable(CountingTable(to));
      Bind(target.get(), "row_wise_adam", 0.25f);
      Restore(target.get(), content);
      ExpectSameContent(ExportAll(target.get(), true), content);
    }
  }
}

// By any other rule the state begins anew, whatever its width.
TEST(StateIsKeptForTheSameRuleAlone) {
  struct Case {
    std::string rule;
    int64_t width;
    bool kept;
  };
  const Case cases[] = {{"row_wise_adagrad", kDim + 1, true},
                        {"row_wise_adam", kDim + 1, false},
                        {"row_wise_adam", 2 * kDim + 1, false},
                        {"sgd", kDim, false},
                        {"", kDim, false},
                        {"", kDim + 1, false},
                        {"nothing known", kDim + 2, false}};
  for (const std::string storage : kAllStorages) {
    for (const Case& c : cases) {
      SCOPED_TRACE(storage, ", rule ", c.rule, ", width ", c.width);
      const auto table = NewTable(CountingTable(storage));
      Bind(table.get(), "row_wise_adagrad", 0.5f);
      Insert(table.get(), DenseKeys(20));
      const Content content = SomeContent({7, 300}, c.width, c.rule);
      Restore(table.get(), content);
      const Content got = ExportAll(table.get(), true);
      EXPECT_EQ(got.rule, "row_wise_adagrad");
      EXPECT_EQ(got.width, kDim + 1);
      Rows want = content.RowsByKey();
      for (auto& [key, row] : want) {
        if (c.kept) continue;
        row.resize(kDim);
        row.push_back(0.5f);
      }
      ExpectSameRows(got.RowsByKey(), want);
      ExpectSameByKey(got.CountsByKey(), content.CountsByKey());
    }
  }
}

// The optimizer that the table is bound to goes on with the rows that come, and with new ones.
TEST(TheBindingOutlivesARestore) {
  SerialPool pool;
  for (const std::string storage : kAllStorages) {
    SCOPED_TRACE(storage);
    const TableOptions options = CountingTable(storage);
    const auto table = NewTable(options);
    TableModel model(options);
    int64_t token = 0;
    EXPECT_OK(table->Bind("row_wise_adagrad", {0.5f}, &pool, &token));
    model.Bind("row_wise_adagrad", {0.5f});
    const Content content = SomeContent({7, 300}, kDim + 1, "row_wise_adagrad");
    Restore(table.get(), content);
    model.Restore(content);
    const std::vector<int64_t> keys = {7, 8};
    const std::vector<float> grads = {1, 2, 3, 4, 5, 6};
    EXPECT_OK(table->Update(keys.data(), grads.data(), 2, kAdagrad, token, false, &pool));
    model.Update(keys, grads, kAdagrad);
    ExpectSameRows(ExportRows(table.get(), true), model.Export(true));
    // Another rule makes room of its own.
    Bind(table.get(), "row_wise_adam", 0.25f);
    model.Bind("row_wise_adam", std::vector<float>(kDim + 1, 0.25f));
    ExpectSameRows(ExportRows(table.get(), true), model.Export(true));
  }
}

TEST(AnUnboundTableRestoresEmbeddingsAlone) {
  SerialPool pool;
  for (const std::string storage : kAllStorages) {
    for (const std::string rule : {"", "row_wise_adagrad"}) {
      for (int64_t width : {kDim, kDim + 1}) {
        SCOPED_TRACE(storage, ", rule '", rule, "', width ", width);
        const auto table = NewTable(CountingTable(storage));
        Insert(table.get(), {1, 2});
        const Content content = SomeContent({7, 300, 2}, width, rule);
        Restore(table.get(), content);
        Rows want = content.RowsByKey();
        for (auto& [key, row] : want) row.resize(kDim);
        const Content got = ExportAll(table.get(), true);
        EXPECT_EQ(got.rule, "");
        ExpectSameRows(got.RowsByKey(), want);
        const int64_t key = 7;
        const float grads[kDim] = {};
        EXPECT_ERROR(table->Update(&key, grads, 1, kSgd, 0, false, &pool),
                     Code::kFailedPrecondition, "is bound to no optimizer");
        Bind(table.get(), "row_wise_adagrad", 0.5f);
        for (auto& [key, row] : want) row.push_back(0.5f);
        ExpectSameRows(ExportRows(table.get(), true), want);
      }
    }
  }
}

TEST(RestoredCountsDecayFromNowOn) {
  SerialPool pool;
  for (const std::string storage : kAllStorages) {
    SCOPED_TRACE(storage);
    const auto table = NewTable(CountingTable(storage));
    Bind(table.get(), "sgd");
    const auto update = [&] {
      EXPECT_OK(table->Update(nullptr, nullptr, 0, kSgd, 0, false, &pool));
    };
    for (int i = 0; i < 5; ++i) update();
    Content content{{7, 300}, std::vector<float>(2 * kDim), {64, 32, 16, 8}, kDim, 2, "sgd"};
    Restore(table.get(), content);
    ExpectSameContent(ExportAll(table.get(), true), content);
    for (int i = 0; i < 3; ++i) update();
    ExpectSameByKey(ExportAll(table.get(), true).CountsByKey(), {{7, {8, 4}}, {300, {2, 1}}});
    content.counts.clear();
    Restore(table.get(), content);
    ExpectSameByKey(ExportAll(table.get(), true).CountsByKey(), {{7, {0, 0}}, {300, {0, 0}}});
  }
}

// Counts that come to a table without any are passed over.
TEST(ATableWithoutCountsRestoresRowsAlone) {
  for (const std::string storage : kAllStorages) {
    SCOPED_TRACE(storage);
    const auto table = NewTable(UniformTable(storage, kDim, kInputDim));
    Bind(table.get(), "row_wise_adagrad", 0.5f);
    const Content content = SomeContent(DenseKeys(100), kDim + 1, "row_wise_adagrad");
    Restore(table.get(), content);
    ExpectSameRows(ExportRows(table.get(), true), content.RowsByKey());
  }
}

TEST(AFullTableRestoresAsManyRowsAsItMayHold) {
  for (const std::string storage : kAllStorages) {
    SCOPED_TRACE(storage);
    TableOptions options = CountingTable(storage);
    options.max_rows = 50;
    const auto table = NewTable(options);
    Insert(table.get(), DenseKeys(50));
    std::vector<int64_t> keys = DenseKeys(50);
    for (int64_t& key : keys) key += 1000;  // others: both would not fit
    const Content content = SomeContent(keys, kDim, "");
    Restore(table.get(), content);
    ExpectSameContent(ExportAll(table.get(), true), content);
  }
}

// 40 MiB of rows, to be replaced by as many.
constexpr int64_t kManyKeys = 20000, kWidth = 500;

struct LargeTable {
  SerialPool pool;
  std::unique_ptr<Table> table;
  std::vector<int64_t> keys = DenseKeys(kManyKeys);
  std::vector<float> initial = std::vector<float>(kManyKeys * kWidth);
  std::vector<float> restored = Random(3).Floats(kManyKeys * kWidth);

  explicit LargeTable(const std::string& storage) {
    table = NewTable(UniformTable(storage, kWidth, 2 * kManyKeys));
    EXPECT_OK(
        table->Lookup(keys.data(), kManyKeys, true, Missing::kInitial, initial.data(), &pool));
  }

  // Its keys are from `first` on.
  Status Restore(int64_t first) {
    for (int64_t i = 0; i < kManyKeys; ++i) keys[i] = first + i;
    return table->Restore({keys.data(), restored.data(), nullptr, kManyKeys, kWidth}, "", &pool);
  }

  // Each row is that of its key in `rows`, which begin with key `first`, and this state.
  void ExpectRows(int64_t first, const std::vector<float>& rows, const std::vector<float>& state) {
    const Content content = ExportAll(table.get(), true);
    EXPECT_EQ(content.size(), kManyKeys);
    EXPECT_EQ(content.width, kWidth + static_cast<int64_t>(state.size()));
    for (int64_t i = 0; i < content.size() && !HasFailure(); ++i) {
      const float* row = content.rows.data() + i * content.width;
      EXPECT_TRUE(std::equal(row, row + kWidth, &rows[(content.keys[i] - first) * kWidth]));
      EXPECT_TRUE(std::equal(state.begin(), state.end(), row + kWidth));
    }
  }
};

TEST(ARestoreWithoutMemoryLeavesTheTableWhole) {
  OnEveryStorageAlone("ARestoreWithoutMemoryLeavesTheTableWhole", [](const std::string& storage) {
    LargeTable large(storage);
    int64_t token = 0;
    EXPECT_OK(large.table->Bind("row_wise_adagrad", {0.5f}, &large.pool, &token));
    const int64_t bytes = large.table->MemoryBytes();
    const int64_t used = AddressBytes();
    for (int64_t mib : {4, 16, 30}) {
      SCOPED_TRACE(mib, " MiB more");
      {
        const MemoryLimit limit(mib << 20, used);
        EXPECT_ERROR(large.Restore(kManyKeys / 2), Code::kResourceExhausted,
                     "out of memory in table 'item'");
      }
      EXPECT_EQ(large.table->MemoryBytes(), bytes);
      large.ExpectRows(0, large.initial, {0.5f});
    }
    const std::vector<float> zeros(kWidth);
    const int64_t key = 3;
    EXPECT_OK(large.table->Update(&key, zeros.data(), 1, kAdagrad, token, false, &large.pool));
    EXPECT_OK(large.Restore(kManyKeys / 2));
    large.ExpectRows(kManyKeys / 2, large.restored, {0.5f});
  });
}

// The rows of some shards may have room for the state that the others have not.
TEST(ATableWhoseBindHadNoMemoryCanBeRestored) {
  OnEveryStorageAlone("ATableWhoseBindHadNoMemoryCanBeRestored", [](const std::string& storage) {
    LargeTable large(storage);
    const std::vector<float> state(kWidth + 1, 0.5f);
    int64_t token = 0;
    {
      const MemoryLimit limit(16 << 20);
      EXPECT_ERROR(large.table->Bind("row_wise_adam", state, &large.pool, &token),
                   Code::kResourceExhausted, "out of memory in table 'item'");
    }
    large.ExpectRows(0, large.initial, {});
    EXPECT_OK(large.Restore(kManyKeys / 2));
    large.ExpectRows(kManyKeys / 2, large.restored, {});
    EXPECT_OK(large.table->Bind("row_wise_adam", state, &large.pool, &token));
    large.ExpectRows(kManyKeys / 2, large.restored, state);
  });
}

}  // namespace
}  // namespace testing
}  // namespace sparse_emb
