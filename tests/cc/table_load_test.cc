// Save and Load: what a table is after them. The file between is table_file_test.cc's.
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/cc/saved_tables.h"

namespace sparse_emb {
namespace testing {
namespace {

TEST(ALoadedTableIsWhatWasSavedInEveryStorage) {
  const Folder folder;
  for (const std::string from : kAllStorages) {
    const auto saved = FilledTable(from);
    EXPECT_OK(Save(saved.get(), folder / "table"));
    for (const std::string to : kAllStorages) {
      SCOPED_TRACE(from, " to ", to);
      TableOptions options = saved->options();
      options.storage = to;
      const auto loaded = NewTable(options);
      Bind(loaded.get(), "row_wise_adagrad");
      LoadReport report;
      EXPECT_OK(Load(loaded.get(), folder / "table", &report));
      EXPECT_TRUE(report.kept_state && !report.other_initial);
      EXPECT_EQ(report.meta.storage, from);
      ExpectSameContent(ExportAll(loaded.get(), true), ExportAll(saved.get(), true));
    }
  }
}

TEST(ATableOfItsOwnStorageGetsTheSameOrder) {
  const Folder folder;
  for (const std::string storage : {"slab", "index", "chained"}) {
    SCOPED_TRACE(storage);
    const auto saved = FilledTable(storage);
    EXPECT_OK(Save(saved.get(), folder / "table"));
    const auto loaded = NewTable(saved->options());
    EXPECT_OK(Load(loaded.get(), folder / "table"));
    EXPECT_EQ(ExportAll(loaded.get(), true).keys, ExportAll(saved.get(), true).keys);
  }
}

TEST(TablesOfManyChunksAndOfNoRowsComeBack) {
  const Folder folder;
  for (const int64_t dim : {1, 1000, 70000}) {
    for (const int64_t rows : {0, 1, dim == 70000 ? 70 : 4000}) {
      SCOPED_TRACE(rows, " rows of width ", dim);
      const auto saved = FilledTable("slab", rows, dim);
      EXPECT_OK(Save(saved.get(), folder / "table"));
      const auto loaded = NewTable(saved->options());
      EXPECT_OK(Load(loaded.get(), folder / "table"));
      ExpectSameContent(ExportAll(loaded.get(), true), ExportAll(saved.get(), true));
    }
  }
}

TEST(ALoadReplacesTheRowsThatWereThere) {
  const Folder folder;
  const auto saved = FilledTable("slab", 100);
  EXPECT_OK(Save(saved.get(), folder / "table"));
  const auto loaded = FilledTable("slab", 3000);
  EXPECT_OK(Load(loaded.get(), folder / "table"));
  ExpectSameContent(ExportAll(loaded.get(), true), ExportAll(saved.get(), true));
}

TEST(CountsDecayFromTheSavedStepOn) {
  const Folder folder;
  SerialPool pool;
  const auto saved = FilledTable("slab");
  EXPECT_OK(Save(saved.get(), folder / "table"));
  const auto loaded = NewTable(saved->options());
  EXPECT_OK(Load(loaded.get(), folder / "table"));
  const std::vector<int64_t> keys = DenseKeys(1500);
  const std::vector<float> grads(kDim);
  const RuleCall adagrad{"row_wise_adagrad", {0.1f, 1e-8f, 0.0f}, 1};
  std::vector<double> want(2 * keys.size()), got(2 * keys.size());
  for (Table* table : {saved.get(), loaded.get()}) {
    EXPECT_OK(table->Update(keys.data(), grads.data(), 1, adagrad, 0, true, &pool));
  }
  EXPECT_OK(saved->GetCounts(keys.data(), keys.size(), want.data(), &pool));
  EXPECT_OK(loaded->GetCounts(keys.data(), keys.size(), got.data(), &pool));
  EXPECT_EQ(got, want);
}

TEST(OfOtherCountsThoseAreKeptThatBothHave) {
  const Folder folder;
  const auto saved = FilledTable("slab", 50);
  EXPECT_OK(Save(saved.get(), folder / "table"));
  const Content want = ExportAll(saved.get(), true);
  for (const int64_t width : {0, 1, 3}) {
    TableOptions options = saved->options();
    options.key_counts.width = width;
    const auto loaded = NewTable(options);
    EXPECT_OK(Load(loaded.get(), folder / "table"));
    const Content got = ExportAll(loaded.get(), true);
    ExpectSameRows(got.RowsByKey(), want.RowsByKey());
    for (const auto& [key, counts] : got.CountsByKey()) {
      for (int64_t k = 0; k < width; ++k) {
        EXPECT_EQ(counts[k], k < 2 ? want.CountsByKey()[key][k] : 0.0);
      }
    }
  }
}

TEST(TheSeedComesWithTheRows) {
  const Folder folder;
  SerialPool pool;
  const auto saved = FilledTable("slab");
  EXPECT_OK(Save(saved.get(), folder / "table"));
  TableOptions options = saved->options();
  EXPECT_OK(InitialRow::Make("uniform", -0.5f, 0.25f, 99, &options.initial_row));
  const auto loaded = NewTable(options);
  EXPECT_OK(Load(loaded.get(), folder / "table"));
  const int64_t unseen = kInputDim - 1;
  std::vector<float> want(kDim), got(kDim);
  EXPECT_OK(saved->Lookup(&unseen, 1, false, Missing::kInitial, want.data(), &pool));
  EXPECT_OK(loaded->Lookup(&unseen, 1, false, Missing::kInitial, got.data(), &pool));
  EXPECT_EQ(got, want);
  EXPECT_EQ(loaded->options().initial_row.seed(), int64_t{7});
}

TEST(AnotherInitializerStaysAndIsReported) {
  const Folder folder;
  const auto saved = FilledTable("slab");
  EXPECT_OK(Save(saved.get(), folder / "table"));
  TableOptions options = saved->options();
  EXPECT_OK(InitialRow::Make("normal", 0.0f, 1.0f, 99, &options.initial_row));
  const auto loaded = NewTable(options);
  LoadReport report;
  EXPECT_OK(Load(loaded.get(), folder / "table", &report));
  EXPECT_TRUE(report.other_initial);
  EXPECT_EQ(std::string(loaded->options().initial_row.kind()), std::string("normal"));
}

// State and bindings.

float FirstState(Table* table) { return ExportAll(table, true).RowsByKey().at(1)[kDim]; }

TEST(LoadedStateWaitsForTheFirstOptimizerOfItsRule) {
  const Folder folder;
  SerialPool pool;
  const auto saved = FilledTable("slab");
  EXPECT_OK(Save(saved.get(), folder / "table"));
  const float state = FirstState(saved.get());
  const auto loaded = NewTable(saved->options());
  EXPECT_OK(Load(loaded.get(), folder / "table"));
  EXPECT_EQ(FirstState(loaded.get()), state);
  int64_t first = 0, second = 0;
  std::string dropped = "?";
  EXPECT_OK(loaded->Bind("row_wise_adagrad", {9}, &pool, &first, &dropped));
  EXPECT_EQ(FirstState(loaded.get()), state);
  EXPECT_EQ(dropped, std::string());
  EXPECT_OK(loaded->Bind("row_wise_adagrad", {9}, &pool, &second, &dropped));
  EXPECT_EQ(FirstState(loaded.get()), 9.0f);
  EXPECT_EQ(dropped, std::string());
  EXPECT_TRUE(first != second);
  const int64_t key = 1;
  const std::vector<float> grad(kDim);
  const RuleCall adagrad{"row_wise_adagrad", {0.1f, 1e-8f, 0.0f}, 1};
  EXPECT_ERROR(loaded->Update(&key, grad.data(), 1, adagrad, first, true, &pool),
               Code::kFailedPrecondition, "since been bound to another optimizer");
}

TEST(AnOptimizerOfAnotherRuleDropsLoadedStateAndSaysSo) {
  const Folder folder;
  SerialPool pool;
  const auto saved = FilledTable("slab");
  EXPECT_OK(Save(saved.get(), folder / "table"));
  const auto loaded = NewTable(saved->options());
  EXPECT_OK(Load(loaded.get(), folder / "table"));
  int64_t token;
  std::string dropped;
  EXPECT_OK(loaded->Bind("momentum", std::vector<float>(kDim, 4), &pool, &token, &dropped));
  EXPECT_EQ(dropped, std::string("row_wise_adagrad"));
  EXPECT_EQ(FirstState(loaded.get()), 4.0f);
}

TEST(ATableBoundToAnotherRuleTakesTheRowsWithoutTheirState) {
  const Folder folder;
  const auto saved = FilledTable("slab");
  EXPECT_OK(Save(saved.get(), folder / "table"));
  const auto loaded = NewTable(saved->options());
  Bind(loaded.get(), "momentum", 4);
  LoadReport report;
  EXPECT_OK(Load(loaded.get(), folder / "table", &report));
  EXPECT_TRUE(!report.kept_state);
  EXPECT_EQ(report.meta.rule, std::string("row_wise_adagrad"));
  EXPECT_EQ(report.rule, std::string("momentum"));
  EXPECT_EQ(FirstState(loaded.get()), 4.0f);
  ExpectSameRows(ExportRows(loaded.get(), false), ExportRows(saved.get(), false));
}

TEST(ALoadKeepsTheBindingOfTheOptimizer) {
  const Folder folder;
  SerialPool pool;
  const auto saved = FilledTable("slab");
  EXPECT_OK(Save(saved.get(), folder / "table"));
  const auto loaded = NewTable(saved->options());
  int64_t token;
  EXPECT_OK(loaded->Bind("row_wise_adagrad", {9}, &pool, &token));
  EXPECT_OK(Load(loaded.get(), folder / "table"));
  EXPECT_EQ(FirstState(loaded.get()), FirstState(saved.get()));
  const int64_t key = 1;
  const std::vector<float> grad(kDim);
  const RuleCall adagrad{"row_wise_adagrad", {0.1f, 1e-8f, 0.0f}, 1};
  EXPECT_OK(loaded->Update(&key, grad.data(), 1, adagrad, token, true, &pool));
}

TEST(ASaveWithoutStateHasNone) {
  const Folder folder;
  const auto saved = FilledTable("slab");
  EXPECT_OK(Save(saved.get(), folder / "with"));
  EXPECT_OK(Save(saved.get(), folder / "without", /*with_state=*/false));
  EXPECT_TRUE(ReadFile(folder / "with").size() - ReadFile(folder / "without").size() >= 1500 * 4);
  const auto loaded = NewTable(saved->options());
  EXPECT_OK(Load(loaded.get(), folder / "without"));
  ExpectSameContent(ExportAll(loaded.get(), false), ExportAll(saved.get(), false));
}

TEST(ALoadedTableThatIsSavedAgainMakesTheSameFile) {
  const Folder folder;
  const auto saved = FilledTable("slab");
  EXPECT_OK(Save(saved.get(), folder / "first"));
  const auto loaded = NewTable(saved->options());
  EXPECT_OK(Load(loaded.get(), folder / "first"));
  EXPECT_OK(Save(loaded.get(), folder / "second"));
  EXPECT_TRUE(ReadFile(folder / "first") == ReadFile(folder / "second"));
}

// A source that fails after some chunks.
class FailingSource final : public RowSource {
 public:
  FailingSource(std::unique_ptr<RowSource> source, int reads)
      : source_(std::move(source)), reads_(reads) {}
  std::string name() const override { return source_->name(); }
  Status Begin(TableMeta* meta) override { return source_->Begin(meta); }
  Status Read(RowChunk* chunk) override {
    if (reads_-- == 0) return Error(Code::kUnavailable, "the disk is gone");
    return source_->Read(chunk);
  }

 private:
  const std::unique_ptr<RowSource> source_;
  int reads_;
};

TEST(ALoadThatFailsMidwayLeavesTheTable) {
  const Folder folder;
  SerialPool pool;
  const auto saved = FilledTable("slab", 4000, 1000);
  EXPECT_OK(Save(saved.get(), folder / "table"));
  for (const std::string storage : kAllStorages) {
    SCOPED_TRACE(storage);
    const auto table = FilledTable(storage, 30, 1000);
    const Content before = ExportAll(table.get(), true);
    LoadReport report;
    FailingSource source(MakeTableFileReader(folder / "table"), 2);
    EXPECT_ERROR(table->Load(&source, &pool, &report), Code::kUnavailable, "the disk is gone");
    ExpectSameContent(ExportAll(table.get(), true), before);
  }
}

TEST(ASaveIsOfOneMoment) {
  const Folder folder;
  SerialPool pool;
  constexpr int64_t kRows = 2000;
  const auto table = NewTable(UniformTable("slab", kDim));
  const std::vector<int64_t> keys = DenseKeys(kRows);
  std::vector<float> rows(kRows * kDim);
  EXPECT_OK(table->Upsert(keys.data(), rows.data(), kRows, &pool));
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    SerialPool own;
    std::vector<float> values(kRows * kDim);
    for (float v = 1; !stop; ++v) {
      std::fill(values.begin(), values.end(), v);
      EXPECT_OK(table->Upsert(keys.data(), values.data(), kRows, &own));
    }
  });
  for (int64_t i = 0; i < Repeats(100); ++i) {
    EXPECT_OK(Save(table.get(), folder / "table"));
    const auto loaded = NewTable(table->options());
    EXPECT_OK(Load(loaded.get(), folder / "table"));
    const std::vector<float> got = ExportAll(loaded.get(), false).rows;
    EXPECT_EQ(got, std::vector<float>(kRows * kDim, got[0]));
  }
  stop = true;
  writer.join();
}

TEST(AReportIsJson) {
  LoadReport report;
  report.meta.name = "a \"b\"\\\n";
  report.meta.initial_state = {0.5f, 0.1f};
  report.meta.dim = 2;
  report.kept_state = true;
  EXPECT_EQ(report.Json(),
            std::string("{\"name\": \"a \\\"b\\\"\\\\\\u000a\", \"storage\": \"\", \"dim\": 2, "
                        "\"input_dim\": -1, \"initializer\": \"\", \"initializer_a\": 0, "
                        "\"initializer_b\": 0, \"seed\": 0, \"has_padding\": false, "
                        "\"padding_key\": 0, \"num_counts\": 0, \"count_decay\": 1, \"rule\": "
                        "\"\", \"initial_state\": [0.5, 0.10000000149011612], \"updates\": 0, "
                        "\"rows\": 0, \"bound_rule\": \"\", \"kept_state\": true, "
                        "\"other_initial\": false}"));
}

}  // namespace
}  // namespace testing
}  // namespace sparse_emb
