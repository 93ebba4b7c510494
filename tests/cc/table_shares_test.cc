// A table that several servers have saved, loaded by another number of them.
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tests/cc/saved_tables.h"

namespace sparse_emb {
namespace testing {
namespace {

TableOptions Options(const std::string& storage = "slab") {
  TableOptions options = UniformTable(storage, kDim, kInputDim);
  options.key_counts = {2, 0.75};
  options.padding_key = 5;
  return options;
}

// Tables of servers, each with a chain of saves.
struct Servers {
  std::vector<std::unique_ptr<Table>> tables;
  std::vector<std::unique_ptr<Chain>> chains;

  explicit Servers(int64_t n, const TableOptions& options = Options()) {
    for (int64_t s = 0; s < n; ++s) {
      tables.push_back(NewTable(options));
      Bind(tables.back().get(), "row_wise_adagrad");
      chains.push_back(std::make_unique<Chain>(tables.back().get()));
    }
  }

  // The same change of the table, however many servers have it.
  void Change(uint64_t seed) {
    Random random(seed);
    SerialPool pool;
    const int64_t first = random.Below(300), kind = random.Below(4);
    const std::vector<float> values = random.Floats(60 * kDim);
    for (size_t s = 0; s < tables.size(); ++s) {
      const Share share{static_cast<int64_t>(s), static_cast<int64_t>(tables.size())};
      std::vector<int64_t> keys;
      std::vector<float> own;
      for (int64_t i = 0; i < 60; ++i) {
        if (!share.Has(first + i)) continue;
        keys.push_back(first + i);
        own.insert(own.end(), &values[i * kDim], &values[i * kDim] + kDim);
      }
      const int64_t n = keys.size();
      Table* const table = tables[s].get();
      if (kind == 0) {
        EXPECT_OK(table->Remove(keys.data(), n, &pool));
      } else if (kind == 1) {
        EXPECT_OK(table->Upsert(keys.data(), own.data(), n, &pool));
      } else if (kind == 2) {
        const std::vector<double> amounts(2 * n, 1.5);
        EXPECT_OK(table->Count(keys.data(), amounts.data(), n, true, &pool));
      } else {
        const RuleCall rule{"row_wise_adagrad", {0.1f, 1e-8f, 0.0f}, 1};
        EXPECT_OK(table->Update(keys.data(), own.data(), n, rule, 0, true, &pool));
      }
    }
  }

  void Save(bool increment) {
    for (const auto& chain : chains) EXPECT_OK(chain->Save(increment));
  }

  // Content of all together, in which a key may come once only.
  Content All() const {
    Content all = ExportAll(tables[0].get(), true);
    for (size_t s = 1; s < tables.size(); ++s) {
      const Content part = ExportAll(tables[s].get(), true);
      all.keys.insert(all.keys.end(), part.keys.begin(), part.keys.end());
      all.rows.insert(all.rows.end(), part.rows.begin(), part.rows.end());
      all.counts.insert(all.counts.end(), part.counts.begin(), part.counts.end());
    }
    return all;
  }
};

// Opens the files of all chains and calls fn(them).
template <class Fn>
auto WithFiles(const Servers& saved, const Fn& fn) {
  std::vector<std::vector<std::unique_ptr<RowSource>>> files;
  Chains chains;
  for (const auto& chain : saved.chains) {
    files.push_back(chain->Open());
    chains.emplace_back();
    for (const auto& file : files.back()) chains.back().push_back(file.get());
  }
  return fn(chains);
}

Status LoadShare(const Servers& saved, const Share& share, Table* to, int64_t log = 0) {
  StdThreadPool pool(2);
  LoadReport report;
  return WithFiles(saved, [&](const Chains& chains) {
    return to->LoadChains(chains, share, log, &pool, &report);
  });
}

Status CheckShare(const Servers& saved, const Share& share, Table* to, int64_t* whole,
                  Status* problem) {
  return WithFiles(
      saved, [&](const Chains& chains) { return to->CheckChains(chains, share, whole, problem); });
}

TEST(ATableOfAnyNumberOfServersGoesToAnyOther) {
  for (int64_t from : {1, 2, 3, 5}) {
    Servers saved(from);
    for (int save = 0; save < 4; ++save) {
      for (int i = 0; i < 8; ++i) saved.Change(10 * save + i);
      saved.Save(save > 0);
    }
    const Content want = saved.All();
    EXPECT_TRUE(want.size() > 200);
    for (int64_t to : {1, 2, 3, 5}) {
      SCOPED_TRACE(from, " servers, then ", to);
      Servers loaded(to);
      for (int64_t s = 0; s < to; ++s) {
        Table* const table = loaded.tables[s].get();
        const Share share{s, to};
        int64_t whole = 0;
        Status problem;
        EXPECT_OK(CheckShare(saved, share, table, &whole, &problem));
        EXPECT_OK(problem);
        EXPECT_EQ(whole, int64_t{4});
        EXPECT_OK(LoadShare(saved, share, table, loaded.chains[s]->log));
        for (const int64_t key : ExportAll(table, true).keys) EXPECT_TRUE(share.Has(key));
        // What a server has read of others it must save as its own.
        bool everything = false;
        int64_t keys = -1;
        EXPECT_OK(table->Changes(loaded.chains[s]->log, &everything, &keys));
        EXPECT_EQ(everything, from != to);
      }
      ExpectSameContent(loaded.All(), want);
      // They have gone through as many updates.
      loaded.Change(1234);
      Servers again(from);
      for (int64_t s = 0; s < from; ++s) {
        EXPECT_OK(LoadShare(saved, {s, from}, again.tables[s].get()));
      }
      again.Change(1234);
      ExpectSameContent(loaded.All(), again.All());
    }
  }
}

TEST(AServerReadsOnlyFilesThatMayHaveItsKeys) {
  Servers saved(4);
  for (int i = 0; i < 8; ++i) saved.Change(i);
  saved.Save(false);
  WriteFile(saved.chains[3]->paths[0], "no table");
  Servers loaded(2);
  int64_t whole = -1;
  Status problem;
  EXPECT_OK(CheckShare(saved, {0, 2}, loaded.tables[0].get(), &whole, &problem));
  EXPECT_EQ(whole, int64_t{1});
  EXPECT_OK(LoadShare(saved, {0, 2}, loaded.tables[0].get()));
  EXPECT_TRUE(loaded.tables[0]->Size() > 0);
  EXPECT_OK(CheckShare(saved, {1, 2}, loaded.tables[1].get(), &whole, &problem));
  EXPECT_EQ(whole, int64_t{0});
  EXPECT_ERROR(problem, Code::kDataLoss, saved.chains[3]->paths[0]);
  EXPECT_ERROR(LoadShare(saved, {1, 2}, loaded.tables[1].get()), Code::kDataLoss, "is no table");
  EXPECT_EQ(loaded.tables[1]->Size(), int64_t{0});
}

TEST(DamageInOneChainEndsAllOfThemThere) {
  Servers saved(3), loaded(1);
  for (int save = 0; save < 4; ++save) {
    saved.Change(save);
    saved.Save(save > 0);
  }
  const auto find_whole = [&] {
    int64_t whole = -1;
    Status problem;
    EXPECT_OK(CheckShare(saved, {}, loaded.tables[0].get(), &whole, &problem));
    EXPECT_EQ(problem.ok(), whole == 4);
    return whole;
  };
  EXPECT_EQ(find_whole(), int64_t{4});
  WriteFile(saved.chains[1]->paths[3], "damage");
  EXPECT_EQ(find_whole(), int64_t{3});
  WriteFile(saved.chains[2]->paths[2], "damage");
  EXPECT_EQ(find_whole(), int64_t{2});
  WriteFile(saved.chains[2]->paths[0], "damage");
  EXPECT_EQ(find_whole(), int64_t{0});
}

TEST(PartsOfDifferentTablesAreFoundOut) {
  Servers saved(2), loaded(1);
  Bind(saved.tables[1].get(), "momentum");
  saved.Save(false);
  const std::string text = saved.chains[1]->paths[0] + "' is no part of the table that";
  int64_t whole = -1;
  Status problem;
  EXPECT_OK(CheckShare(saved, {}, loaded.tables[0].get(), &whole, &problem));
  EXPECT_ERROR(problem, Code::kDataLoss, text);
  EXPECT_EQ(whole, int64_t{0});
  EXPECT_ERROR(LoadShare(saved, {}, loaded.tables[0].get()), Code::kDataLoss, text);
}

TEST(RowsOfOtherServersDoNotCountTowardsMaxRows) {
  SerialPool pool;
  Servers saved(1);
  std::vector<int64_t> keys = DenseKeys(1000);
  EXPECT_OK(
      saved.tables[0]->Upsert(keys.data(), Random(1).Floats(1000 * kDim).data(), 1000, &pool));
  saved.Save(false);
  int64_t own = 0;
  for (const int64_t key : keys) own += Share{1, 3}.Has(key);
  for (const int64_t max_rows : {own, own - 1}) {
    TableOptions options = Options();
    options.max_rows = max_rows;
    const auto table = NewTable(options);
    int64_t whole = -1;
    Status problem;
    const Status checked = CheckShare(saved, {1, 3}, table.get(), &whole, &problem);
    const Status loaded = LoadShare(saved, {1, 3}, table.get());
    if (max_rows == own) {
      EXPECT_OK(checked);
      EXPECT_OK(loaded);
      EXPECT_EQ(table->Size(), own);
      continue;
    }
    const std::string text =
        Join("max_rows = ", max_rows, " and cannot take the ", own, " rows of");
    EXPECT_ERROR(checked, Code::kResourceExhausted, text);
    EXPECT_ERROR(loaded, Code::kResourceExhausted, text);
    EXPECT_EQ(table->Size(), int64_t{0});
  }
}

}  // namespace
}  // namespace testing
}  // namespace sparse_emb
