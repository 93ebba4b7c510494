// Export in parts: a cursor walks every row once, in the storage's order.
#include <algorithm>
#include <string>
#include <vector>

#include "tests/cc/keys.h"
#include "tests/cc/table_model.h"
#include "tests/cc/testing.h"

namespace sparse_emb {
namespace testing {
namespace {

constexpr int64_t kDim = 3, kInputDim = 5000;

// A table with counts under row-wise Adagrad.
class SomeTable {
 public:
  explicit SomeTable(const std::string& storage) {
    // Any key where any can be.
    TableOptions options = UniformTable(storage, kDim, storage == "index" ? kInputDim : -1);
    options.key_counts.width = 2;
    table = NewTable(options);
    EXPECT_OK(table->Bind("row_wise_adagrad", {0.5f}, &pool_, &token_));
  }

  // Keys with their initial rows, state 0.5 and counts of their own.
  void Insert(const std::vector<int64_t>& keys) {
    std::vector<float> out(keys.size() * kDim);
    EXPECT_OK(table->Lookup(keys.data(), keys.size(), true, Missing::kInitial, out.data(), &pool_));
    std::vector<double> counts;
    for (int64_t key : keys) counts.insert(counts.end(), {static_cast<double>(key % 1000), 1.0});
    EXPECT_OK(table->Count(keys.data(), counts.data(), keys.size(), true, &pool_));
  }
  void Remove(const std::vector<int64_t>& keys) {
    EXPECT_OK(table->Remove(keys.data(), keys.size(), &pool_));
  }
  void Bind(const std::string& rule, std::vector<float> state) {
    EXPECT_OK(table->Bind(rule, state, &pool_, &token_));
  }

  std::unique_ptr<Table> table;

 private:
  SerialPool pool_;
  int64_t token_ = 0;
};

std::vector<int64_t> Shuffled(std::vector<int64_t> keys, uint64_t seed) {
  Random random(seed);
  for (size_t i = keys.size(); i > 1; --i) std::swap(keys[i - 1], keys[random.Below(i)]);
  return keys;
}

// All parts of `limit` rows are, one after the other, what one part of all rows is.
void ExpectPartsOf(Table* table, int64_t limit, bool with_state) {
  SCOPED_TRACE("parts of ", limit, " of ", table->Size());
  const Content whole = ExportAll(table, with_state);
  EXPECT_EQ(whole.size(), table->Size());
  // A place of the map holds several rows: those that finding the last of them passes by.
  const bool shares_places = table->options().storage == "unordered_map";
  const int64_t more = shares_places ? table->Statistics().max_probes - 1 : 0;
  Content parts;
  int64_t next = 0;
  while (next != -1 && !HasFailure()) {
    const int64_t before = parts.size();
    next = ExportPart(table, with_state, next, limit, &parts);
    const int64_t size = parts.size() - before;
    EXPECT_LE(size - more, limit);
    if (next != -1) EXPECT_LE(limit, size);
  }
  EXPECT_EQ(parts.keys, whole.keys);
  EXPECT_EQ(parts.rows, whole.rows);
  EXPECT_EQ(parts.counts, whole.counts);
  ExpectSameContent(parts, whole);
}

void ExpectParts(Table* table) {
  const int64_t size = table->Size();
  for (int64_t limit : {int64_t{1}, int64_t{2}, int64_t{7}, int64_t{64}, size - 1, size, size + 1,
                        kNoLimit - 1, kNoLimit}) {
    if (limit > 0) ExpectPartsOf(table, limit, limit % 2 == 0);
  }
}

TEST(ACursorWalksEveryRowOnce) {
  for (const std::string storage : kAllStorages) {
    for (int64_t size : {0, 1, 2, 63, 64, 65, 1000}) {
      SCOPED_TRACE(storage, " of ", size);
      SomeTable table(storage);
      table.Insert(Shuffled(DenseKeys(size), 1));
      EXPECT_EQ(table.table->Size(), size);
      ExpectParts(table.table.get());
    }
    if (storage == "index") continue;
    SomeTable table(storage);
    table.Insert(HardKeys(400));
    ExpectParts(table.table.get());
  }
}

// Removals leave free rows in slab, gaps in index and none in chained; new keys fill them again.
TEST(ACursorWalksEveryRowOnceAfterRemovals) {
  for (const std::string storage : kAllStorages) {
    SCOPED_TRACE(storage);
    SomeTable table(storage);
    const std::vector<int64_t> keys = storage == "index" ? DenseKeys(1000) : HardKeys(400);
    const std::vector<int64_t> shuffled = Shuffled(keys, 2);
    const auto half = shuffled.begin() + shuffled.size() / 2;
    table.Insert(keys);
    table.Remove({shuffled.begin(), half});
    EXPECT_EQ(table.table->Size(), shuffled.end() - half);
    ExpectParts(table.table.get());
    table.Insert({shuffled.begin(), shuffled.begin() + 100});
    ExpectParts(table.table.get());
    table.Bind("row_wise_adam", std::vector<float>(kDim + 1, 2.0f));
    ExpectParts(table.table.get());
    table.Remove({shuffled.begin() + 50, shuffled.end()});
    EXPECT_EQ(table.table->Size(), 50);
    ExpectParts(table.table.get());
    table.Insert(keys);
    ExpectParts(table.table.get());
    table.Remove(keys);
    ExpectParts(table.table.get());
    table.Insert({keys[5]});
    ExpectParts(table.table.get());
  }
}

// Rows of slab and index never move, so whatever comes and goes between two parts, those that stay
// come once, as they were at the time of their part.
TEST(RowsThatStayComeOnceWhileOthersComeAndGo) {
  for (const std::string storage : {"slab", "index"}) {
    for (int64_t limit : {1, 13, 100, 700}) {
      SCOPED_TRACE(storage, ", parts of ", limit);
      SomeTable table(storage);
      const std::vector<int64_t> stay = Shuffled(DenseKeys(1500), 3);
      std::vector<int64_t> others;
      for (int64_t key = 1500; key < kInputDim; ++key) others.push_back(key);
      others = Shuffled(others, 4);
      table.Insert(stay);
      table.Insert({others.begin(), others.begin() + 500});
      table.Remove({others.begin() + 100, others.begin() + 300});  // free rows from the start
      size_t insert_at = 500, remove_at = 300;
      Content parts;
      int64_t next = 0;
      while (next != -1 && !HasFailure()) {
        next = ExportPart(table.table.get(), true, next, limit, &parts);
        // More come than go: the index and the chunks of rows grow.
        for (int i = 0; i < 7 && insert_at < others.size(); ++i)
          table.Insert({others[insert_at++]});
        for (int i = 0; i < 3; ++i) table.Remove({others[remove_at++ % others.size()]});
      }
      std::vector<int64_t> got;
      for (int64_t i = 0; i < parts.size(); ++i) {
        if (parts.keys[i] >= 1500) continue;
        got.push_back(parts.keys[i]);
        EXPECT_EQ(parts.rows[(i + 1) * (kDim + 1) - 1], 0.5f);
        EXPECT_EQ(parts.counts[2 * i], static_cast<double>(parts.keys[i] % 1000));
      }
      std::sort(got.begin(), got.end());
      EXPECT_EQ(got, DenseKeys(1500));
    }
  }
}

TEST(ExportGivesTheStateItsRuleAndTheCounts) {
  for (const std::string storage : kAllStorages) {
    SCOPED_TRACE(storage);
    SomeTable table(storage);
    TableModel model(table.table->options());
    table.Insert({7, 2});
    const Content with = ExportAll(table.table.get(), true);
    const Content without = ExportAll(table.table.get(), false);
    EXPECT_EQ(with.rule, "row_wise_adagrad");
    EXPECT_EQ(without.rule, "");
    EXPECT_EQ(with.width, kDim + 1);
    EXPECT_EQ(without.width, kDim);
    Rows want = {{2, model.Initial(2)}, {7, model.Initial(7)}};
    ExpectSameRows(without.RowsByKey(), want);
    for (auto& [key, row] : want) row.push_back(0.5f);
    ExpectSameRows(with.RowsByKey(), want);
    const Counts counts = {{2, {2, 1}}, {7, {7, 1}}};
    ExpectSameByKey(with.CountsByKey(), counts);
    ExpectSameByKey(without.CountsByKey(), counts);
  }
}

// A table without an optimizer exports embeddings alone, under no rule.
TEST(AnUnboundTableExportsEmbeddingsAlone) {
  SerialPool pool;
  for (const std::string storage : kAllStorages) {
    SCOPED_TRACE(storage);
    const auto table = NewTable(UniformTable(storage, kDim, kInputDim));
    const int64_t key = 4;
    std::vector<float> out(kDim);
    EXPECT_OK(table->Lookup(&key, 1, true, Missing::kInitial, out.data(), &pool));
    const Content content = ExportAll(table.get(), true);
    EXPECT_EQ(content.rule, "");
    EXPECT_EQ(content.width, kDim);
    ExpectSameRows(content.RowsByKey(), {{4, out}});
  }
}

TEST(ACursorBehindTheLastRowGivesNone) {
  for (const std::string storage : kAllStorages) {
    SCOPED_TRACE(storage);
    SomeTable table(storage);
    table.Insert(DenseKeys(1000));
    for (int64_t cursor : {int64_t{63} << 48 | int64_t{1} << 40, int64_t{64} << 48, INT64_MAX}) {
      Content content;
      EXPECT_EQ(ExportPart(table.table.get(), true, cursor, 10, &content), -1);
      EXPECT_EQ(content.size(), 0);
    }
    // One that the table has outlived.
    Content content;
    const int64_t next = ExportPart(table.table.get(), true, 0, 900, &content);
    table.table->Clear();
    EXPECT_EQ(ExportPart(table.table.get(), true, next, 10, &content), -1);
    EXPECT_EQ(content.size(), content.keys.size());
    ExpectParts(table.table.get());
  }
}

TEST(ABadExportIsAnErrorAndAllocatesNothing) {
  SomeTable table("slab");
  table.Insert(DenseKeys(10));
  const auto expect_error = [&](int64_t cursor, int64_t limit, const std::string& part) {
    std::string rule = "before";
    int64_t next = -5;
    bool allocated = false;
    const auto allocate = [&](int64_t, int64_t) {
      allocated = true;
      return TableRows{};
    };
    EXPECT_ERROR(table.table->Export(true, cursor, limit, allocate, &rule, &next),
                 Code::kInvalidArgument, part);
    EXPECT_TRUE(!allocated);
    EXPECT_EQ(rule, "before");
    EXPECT_EQ(next, -5);
  };
  for (int64_t cursor : {int64_t{-1}, INT64_MIN}) {
    expect_error(cursor, 1, Join("cursor must be 0 or what came before, got ", cursor));
  }
  for (int64_t limit : {int64_t{0}, int64_t{-1}, INT64_MIN}) {
    expect_error(0, limit, Join("must be positive, got ", limit));
  }
}

// A caller without memory gives null pointers, and can come again with the same cursor.
TEST(WhereThereIsNoRoomNothingIsWritten) {
  for (const std::string storage : kAllStorages) {
    SCOPED_TRACE(storage);
    SomeTable table(storage);
    table.Insert(DenseKeys(1000));
    for (int64_t limit : {int64_t{100}, kNoLimit}) {
      std::string rule;
      int64_t next = 0, rows = 0;
      const auto refuse = [&](int64_t n, int64_t) {
        rows = n;
        return TableRows{};
      };
      EXPECT_OK(table.table->Export(true, 0, limit, refuse, &rule, &next));
      Content content;
      EXPECT_EQ(ExportPart(table.table.get(), true, 0, limit, &content), next);
      EXPECT_EQ(content.size(), rows);
    }
  }
}

}  // namespace
}  // namespace testing
}  // namespace sparse_emb
