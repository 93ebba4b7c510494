// The log of changed keys, and a table's saves of what has changed: a whole table and its
// increments, loaded in order, are the table.
#include "cc/lib/change_log.h"

#include <cstdint>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "tests/cc/saved_tables.h"

namespace sparse_emb {
namespace testing {
namespace {

std::vector<int64_t> SortedKeys(const KeySet& set, int64_t limit) {
  std::vector<int64_t> all, part;
  for (int64_t cursor = 0; set.Next(&cursor, limit, &part);) {
    EXPECT_LE(part.size(), limit);
    all.insert(all.end(), part.begin(), part.end());
  }
  std::sort(all.begin(), all.end());
  return all;
}

TEST(AKeySetHoldsEveryKeyOnce) {
  Random random(1);
  KeySet set;
  std::set<int64_t> model;
  for (const int64_t key : {std::numeric_limits<int64_t>::min(), int64_t{0}, int64_t{-1},
                            std::numeric_limits<int64_t>::max()}) {
    set.Insert(&key, 1);
    model.insert(key);
  }
  for (int round = 0; round < 200; ++round) {
    std::vector<int64_t> keys(random.Below(100));
    for (int64_t& key : keys) key = (random.Below(5000) - 2500) * (random.OneIn(2) ? 1 : 1 << 20);
    set.Insert(keys.data(), keys.size());
    model.insert(keys.begin(), keys.end());
    EXPECT_EQ(set.size(), static_cast<int64_t>(model.size()));
  }
  const std::vector<int64_t> want(model.begin(), model.end());
  for (const int64_t limit : {1, 7, 64, 1 << 20}) EXPECT_EQ(SortedKeys(set, limit), want);
  KeySet empty;
  EXPECT_EQ(SortedKeys(empty, 10), std::vector<int64_t>());
}

TEST(WhatASaveTookStaysUntilItIsConfirmed) {
  ChangeLog log;
  const std::vector<int64_t> a = {1, 2, 3}, b = {3, 4}, all = {1, 2, 3, 4};
  log.Add(a.data(), a.size());
  log.Take();
  EXPECT_EQ(SortedKeys(log.taken(), 10), a);
  log.Add(b.data(), b.size());
  log.Take();  // the save before failed
  EXPECT_EQ(SortedKeys(log.taken(), 10), all);
  log.Add(a.data(), 1);
  log.Confirm();
  EXPECT_EQ(log.MaxKeys(), int64_t{1});  // changed after the save
  log.Take();
  EXPECT_EQ(SortedKeys(log.taken(), 10), std::vector<int64_t>{1});
  log.AddEverything();
  log.Take();
  EXPECT_TRUE(log.everything());
  log.Add(b.data(), b.size());
  EXPECT_TRUE(log.everything());
  log.Confirm();
  EXPECT_TRUE(!log.everything());
  EXPECT_EQ(log.MaxKeys(), int64_t{2});
}

// One random change of a table.
void ChangeSomething(Table* table, Random* random) {
  SerialPool pool;
  std::set<int64_t> chosen;
  while (chosen.size() < 20) chosen.insert(random->Below(400));
  const std::vector<int64_t> keys(chosen.begin(), chosen.end());
  const int64_t n = keys.size();
  const std::vector<float> values = random->Floats(n * kDim);
  std::vector<float> out(n * kDim);
  const std::vector<double> amounts(2 * n, 1.5);
  const RuleCall rule{"row_wise_adagrad", {0.1f, 1e-8f, 0.0f}, 1};
  switch (random->Below(6)) {
    case 0:
      EXPECT_OK(table->Lookup(keys.data(), n, true, Missing::kInitial, out.data(), &pool));
      break;
    case 1:
      EXPECT_OK(table->Update(keys.data(), values.data(), n, rule, 0, true, &pool));
      break;
    case 2:
      EXPECT_OK(table->Upsert(keys.data(), values.data(), n, &pool));
      break;
    case 3:
      EXPECT_OK(table->ScatterAdd(keys.data(), values.data(), n, &pool));
      break;
    case 4:
      EXPECT_OK(table->Remove(keys.data(), n / 2, &pool));
      break;
    default:
      EXPECT_OK(table->Count(keys.data(), amounts.data(), n, true, &pool));
  }
}

TEST(AWholeTableAndItsIncrementsAreTheTable) {
  for (const std::string storage : kAllStorages) {
    SCOPED_TRACE(storage);
    Random random(3);
    TableOptions options = UniformTable(storage, kDim, kInputDim);
    options.key_counts = {2, 0.75};
    options.padding_key = 5;
    options.max_norm = {0.4f, 2.0f};
    const auto saved = NewTable(options);
    Bind(saved.get(), "row_wise_adagrad");
    Chain chain(saved.get());
    const auto restored = NewTable(options);
    for (int save = 0; save < 12; ++save) {
      SCOPED_TRACE("save ", save);
      const int64_t changes = random.Below(6);  // at times none
      for (int64_t i = 0; i < changes; ++i) ChangeSomething(saved.get(), &random);
      EXPECT_OK(chain.Save(save > 0));
      EXPECT_OK(chain.Load(restored.get()));
      ExpectSameContent(ExportAll(restored.get(), true), ExportAll(saved.get(), true));
    }
  }
}

TEST(AnIncrementHasOnlyWhatHasChanged) {
  const auto table = FilledTable("slab", 3000);
  Chain chain(table.get());
  EXPECT_OK(chain.Save(false));
  SerialPool pool;
  const std::vector<int64_t> there = {3, 17};
  EXPECT_OK(table->ScatterAdd(there.data(), Random(1).Floats(2 * kDim).data(), 2, &pool));
  EXPECT_OK(table->Lookup(there.data(), 2, true, Missing::kInitial,
                          std::vector<float>(2 * kDim).data(), &pool));  // changes nothing
  EXPECT_OK(chain.Save(true));
  EXPECT_LE(ReadFile(chain.paths[1]).size(), 500);
  EXPECT_OK(chain.Save(true));
  EXPECT_LE(ReadFile(chain.paths[2]).size(), 300);
}

TEST(LogsOfATableKnowNothingOfEachOther) {
  const auto table = FilledTable("slab", 100);
  Chain one(table.get());
  EXPECT_OK(one.Save(false));
  Random random(4);
  ChangeSomething(table.get(), &random);
  Chain other(table.get());
  EXPECT_ERROR(other.Save(true), Code::kFailedPrecondition, "it must be saved whole");
  EXPECT_OK(other.Save(false));
  ChangeSomething(table.get(), &random);
  EXPECT_OK(one.Save(true));
  EXPECT_OK(other.Save(true));
  table->CloseLog(other.log);
  EXPECT_ERROR(other.Save(true), Code::kInvalidArgument, "has no log");
  for (const Chain* chain : {&one, &other}) {
    const auto restored = NewTable(table->options());
    EXPECT_OK(chain->Load(restored.get()));
    ExpectSameContent(ExportAll(restored.get(), true), ExportAll(table.get(), true));
  }
}

TEST(WhatReplacesAllRowsAsksForAWholeSave) {
  const auto source = FilledTable("slab", 10);
  Content content = ExportAll(source.get(), true);
  Folder folder;
  EXPECT_OK(Save(source.get(), folder / "table"));
  SerialPool pool;
  const std::vector<std::function<void(Table*)>> changes = {
      [&](Table* t) { t->Clear(); },
      [&](Table* t) { EXPECT_OK(t->Restore(content.view(), content.rule, &pool)); },
      [&](Table* t) { EXPECT_OK(Load(t, folder / "table")); },
      [&](Table* t) { Bind(t, "row_wise_adagrad"); },
      [&](Table* t) { Bind(t, "momentum"); },
  };
  for (size_t i = 0; i < changes.size(); ++i) {
    SCOPED_TRACE("change ", i);
    const auto table = FilledTable("slab", 100);
    Chain chain(table.get());
    EXPECT_OK(chain.Save(false));
    changes[i](table.get());
    bool everything = false;
    int64_t keys;
    EXPECT_OK(table->Changes(chain.log, &everything, &keys));
    EXPECT_TRUE(everything);
    EXPECT_ERROR(chain.Save(true), Code::kFailedPrecondition, "it must be saved whole");
    chain.paths.clear();
    EXPECT_OK(chain.Save(false));
    EXPECT_OK(chain.Save(true));
    const auto restored = NewTable(table->options());
    EXPECT_OK(chain.Load(restored.get()));
    ExpectSameContent(ExportAll(restored.get(), true), ExportAll(table.get(), true));
  }
}

TEST(ALoadedChainGoesOnWithIncrements) {
  const auto table = FilledTable("slab", 100);
  Chain chain(table.get());
  EXPECT_OK(chain.Save(false));
  const auto restored = NewTable(table->options());
  const int64_t log = restored->OpenLog(), other_log = restored->OpenLog();
  EXPECT_OK(chain.Load(restored.get(), log));
  bool everything = true;
  int64_t keys = -1;
  EXPECT_OK(restored->Changes(log, &everything, &keys));
  EXPECT_TRUE(!everything);
  EXPECT_EQ(keys, int64_t{0});
  EXPECT_OK(restored->Changes(other_log, &everything, &keys));
  EXPECT_TRUE(everything);
  // Rows that are not what was saved are saved whole.
  const auto other_rule = NewTable(table->options());
  Bind(other_rule.get(), "momentum");
  const int64_t third = other_rule->OpenLog();
  EXPECT_OK(chain.Load(other_rule.get(), third));
  EXPECT_OK(other_rule->Changes(third, &everything, &keys));
  EXPECT_TRUE(everything);
}

TEST(AnUpdateAfterALoadDoesNotTouchTheRowsOfBefore) {
  const auto table = FilledTable("slab", 100), loaded = FilledTable("slab", 100);
  Folder folder;
  EXPECT_OK(Save(table.get(), folder / "table"));
  SerialPool pool;
  const std::vector<int64_t> keys = {1, 2, 3};
  std::vector<float> out(3 * kDim);
  const std::vector<float> grads(3 * kDim, 1.0f);
  const RuleCall rule{"row_wise_adagrad", {0.1f, 1e-8f, 0.0f}, 1};
  EXPECT_OK(loaded->Lookup(keys.data(), 3, true, Missing::kInitial, out.data(), &pool));
  EXPECT_OK(Load(loaded.get(), folder / "table"));
  EXPECT_OK(table->Update(keys.data(), grads.data(), 3, rule, 0, true, &pool));
  EXPECT_OK(loaded->Update(keys.data(), grads.data(), 3, rule, 0, true, &pool));
  ExpectSameContent(ExportAll(loaded.get(), true), ExportAll(table.get(), true));
}

// What is found out.

TEST(EveryDamageOfAnIncrementIsFoundOutAndLeavesTheTable) {
  const auto table = FilledTable("slab", 20);
  Chain chain(table.get());
  EXPECT_OK(chain.Save(false));
  SerialPool pool;
  const std::vector<int64_t> keys = {1, 2, 3};
  EXPECT_OK(table->ScatterAdd(keys.data(), Random(1).Floats(3 * kDim).data(), 3, &pool));
  EXPECT_OK(table->Remove(keys.data() + 1, 1, &pool));
  EXPECT_OK(chain.Save(true));
  EXPECT_OK(chain.Save(true));
  const std::string whole = ReadFile(chain.paths[1]);
  const auto restored = FilledTable("slab", 7);
  const Content before = ExportAll(restored.get(), true);
  for (size_t at = 0; at < 2 * whole.size(); ++at) {
    SCOPED_TRACE(at < whole.size() ? "flipped at " : "cut off at ", at % whole.size());
    std::string bytes = whole;
    if (at < whole.size()) {
      bytes[at] ^= 1 << (at % 8);
    } else {
      bytes.resize(at - whole.size());
    }
    WriteFile(chain.paths[1], bytes);
    Status problem;
    EXPECT_EQ(chain.CountWhole(restored.get(), &problem), int64_t{1});
    EXPECT_TRUE(problem.message.find("'" + chain.paths[1] + "'") != std::string::npos);
    EXPECT_TRUE(!chain.Load(restored.get()).ok());
  }
  ExpectSameContent(ExportAll(restored.get(), true), before);
  WriteFile(chain.paths[1], whole);
  Status problem;
  EXPECT_EQ(chain.CountWhole(restored.get(), &problem), int64_t{3});
  EXPECT_OK(problem);
}

TEST(FilesInTheWrongPlaceAreFoundOut) {
  const auto table = FilledTable("slab", 20);
  Chain chain(table.get());
  EXPECT_OK(chain.Save(false));
  EXPECT_OK(chain.Save(true));
  EXPECT_OK(chain.Save(true));
  EXPECT_ERROR(Load(table.get(), chain.paths[1]), Code::kInvalidArgument, "is an increment");
  EXPECT_OK(Load(table.get(), chain.paths[0]));
  std::swap(chain.paths[1], chain.paths[2]);
  Status problem;
  EXPECT_EQ(chain.CountWhole(table.get(), &problem), int64_t{1});
  EXPECT_ERROR(problem, Code::kDataLoss, "is a file of another save, 'save 2', where one of save");
  WriteFile(chain.paths[1], ReadFile(chain.paths[0]));
  EXPECT_EQ(chain.CountWhole(table.get(), &problem), int64_t{1});
  WriteFile(chain.folder / "0", "");
  EXPECT_EQ(chain.CountWhole(table.get(), &problem), int64_t{0});
}

TEST(AFailedSaveKeepsItsKeysForTheNext) {
  const auto table = FilledTable("slab", 100);
  Chain chain(table.get());
  EXPECT_OK(chain.Save(false));
  Random random(6);
  ChangeSomething(table.get(), &random);
  StdThreadPool pool(2);
  EXPECT_ERROR(table->SaveInChain(chain.log, "x", true,
                                  MakeTableFileWriter(chain.folder / "none/x", false).get(), &pool),
               Code::kNotFound, "none/x");
  EXPECT_ERROR(table->SaveInChain(chain.log, "x", true,
                                  MakeTableFileWriter("/dev/full", false).get(), &pool),
               Code::kResourceExhausted, "No space left");
  ChangeSomething(table.get(), &random);
  EXPECT_OK(chain.Save(true));
  const auto restored = NewTable(table->options());
  EXPECT_OK(chain.Load(restored.get()));
  ExpectSameContent(ExportAll(restored.get(), true), ExportAll(table.get(), true));
}

}  // namespace
}  // namespace testing
}  // namespace sparse_emb
