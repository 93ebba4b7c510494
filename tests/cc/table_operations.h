// Random operations on a table and on its model.
#ifndef TF_SPARSE_EMB_TESTS_CC_TABLE_OPERATIONS_H_
#define TF_SPARSE_EMB_TESTS_CC_TABLE_OPERATIONS_H_

#include <algorithm>
#include <cstdio>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "cc/lib/dedup_lookup.h"
#include "cc/lib/table.h"
#include "tests/cc/table_model.h"
#include "tests/cc/testing.h"

namespace sparse_emb {
namespace testing {

// A save that stays in memory.
class SavedRows final : public RowSink, public RowSource {
 public:
  int64_t size() const {  // of its rows, and of the keys that were removed
    int64_t n = 0;
    for (const RowChunk& chunk : chunks_) n += chunk.n() + chunk.removed.size();
    return n;
  }

  Status Begin(const TableMeta& meta) override {
    meta_ = meta;
    chunks_.clear();
    return {};
  }
  Status Write(const RowChunk& chunk, const Turn& turn) override {
    SPARSE_EMB_RETURN_IF_ERROR(turn.Wait());
    chunks_.push_back(chunk);
    return {};
  }
  Status End() override { return {}; }

  std::string name() const override { return "'memory'"; }
  Status Begin(TableMeta* meta) override {
    *meta = meta_;
    next_ = 0;
    return {};
  }
  Status Read(RowChunk* chunk) override {
    *chunk = next_ < chunks_.size() ? chunks_[next_++] : RowChunk();
    return {};
  }

 private:
  TableMeta meta_;
  std::vector<RowChunk> chunks_;
  size_t next_ = 0;
};

// Does the same random operations to a table and to its model and compares all that they return,
// bit by bit: with any pool the results are the model's, so they do not depend on the pool.
class RandomOperations {
 public:
  RandomOperations(const TableOptions& options, std::vector<int64_t> keys, WorkerPool* pool,
                   Random random = Random(42))
      : options_(options),
        all_keys_(std::move(keys)),
        pool_(pool),
        table_(NewTable(options)),
        model_(options),
        random_(std::move(random)),
        log_(table_->OpenLog()) {}

  void Run(int64_t operations) {
    exported_ = ExportAll(table_.get(), true);
    for (int64_t i = 0; i < operations && !random_.UsedUp() && !HasFailure(); ++i) {
      // The first ones are to a table without an optimizer.
      if (i == operations / 20) Bind();
      Step();
      EXPECT_EQ(table_->Size(), model_.size());
      if (HasFailure()) std::printf("  after %ld operations\n", static_cast<long>(i));
    }
    Export();
  }

 private:
  void Step() {
    const int64_t what = random_.Below(1000);
    if (what < 200) {
      Lookup();
    } else if (what < 400) {
      DedupAndLookup();
    } else if (what < 550) {
      Update();
    } else if (what < 640) {
      Upsert();
    } else if (what < 720) {
      ScatterAdd();
    } else if (what < 800) {
      Remove();
    } else if (what < 830) {
      Contains();
    } else if (what < 860) {
      ReadRows();
    } else if (what < 920) {
      Count();
    } else if (what < 970) {
      GetCounts();
    } else if (what < 980) {
      Export();
    } else if (what < 984) {
      Restore();
    } else if (what < 987) {
      Save();
    } else if (what < 990) {
      Load();
    } else if (what < 995) {
      SaveInChain();
    } else if (what < 999) {
      Bind();
    } else if (random_.OneIn(2)) {
      table_->Clear();
      model_.Clear();
    }
  }

  std::vector<int64_t> SomeKeys() {
    std::vector<int64_t> keys(random_.Below(random_.OneIn(50) ? 500 : 12));
    for (int64_t& key : keys) {
      key = all_keys_[random_.Below(all_keys_.size())];
      if (options_.padding_key && random_.OneIn(20)) key = *options_.padding_key;
    }
    if (keys.size() > 1) keys.back() = keys.front();
    return keys;
  }

  static std::vector<int64_t> Different(const std::vector<int64_t>& keys) {
    std::vector<int64_t> different;
    std::set<int64_t> seen;
    for (int64_t key : keys) {
      if (seen.insert(key).second) different.push_back(key);
    }
    return different;
  }

  std::vector<int64_t> DifferentKeys() { return Different(SomeKeys()); }

  void Lookup() {
    const std::vector<int64_t> keys = SomeKeys();
    const bool insert = random_.OneIn(2);
    const Missing missing = random_.OneIn(2) ? Missing::kZeros : Missing::kInitial;
    std::vector<float> out(keys.size() * options_.dim, -9.0f);
    EXPECT_OK(table_->Lookup(keys.data(), keys.size(), insert, missing, out.data(), pool_));
    EXPECT_EQ(out, model_.Lookup(keys, insert, missing));
  }

  void DedupAndLookup() {
    const std::vector<int64_t> keys = SomeKeys();
    const bool insert = random_.OneIn(2);
    const Missing missing = random_.OneIn(2) ? Missing::kZeros : Missing::kInitial;
    const int64_t n = keys.size(), dim = options_.dim, room = random_.Below(n + 1);
    std::vector<int64_t> unique(n);
    std::vector<int32_t> inverse(n), counts(n);
    std::vector<float> ahead(room * dim, -9.0f), apart;
    int64_t num_unique = -1;
    const auto place_rows = [&](int64_t size) {
      num_unique = size;
      if (size <= room) return ahead.data();
      apart.resize(size * dim, -9.0f);
      return apart.data();
    };
    EXPECT_OK(DedupLookup(keys.data(), n, {unique.data(), inverse.data(), counts.data()},
                          table_.get(), insert, missing, {ahead.data(), room}, place_rows, pool_));
    unique.resize(num_unique);
    EXPECT_EQ(unique, Different(keys));
    for (int64_t i = 0; i < n; ++i) EXPECT_EQ(unique[inverse[i]], keys[i]);
    std::vector<float>& out = num_unique <= room ? ahead : apart;
    out.resize(num_unique * dim);
    EXPECT_EQ(out, model_.Lookup(unique, insert, missing));
  }

  void Update() {
    const std::vector<int64_t> keys = DifferentKeys();
    const std::vector<float> grads = random_.Floats(keys.size() * options_.dim);
    ++rule_.step;
    const Status status = table_->Update(keys.data(), grads.data(), keys.size(), rule_,
                                         random_.OneIn(2) ? token_ : 0, random_.OneIn(2), pool_);
    if (model_.rule().empty()) {
      EXPECT_ERROR(status, Code::kFailedPrecondition, "is bound to no optimizer");
      return;
    }
    EXPECT_OK(status);
    model_.Update(keys, grads, rule_);
  }

  void Upsert() {
    const std::vector<int64_t> keys = SomeKeys();
    const std::vector<float> rows = random_.Floats(keys.size() * options_.dim);
    EXPECT_OK(table_->Upsert(keys.data(), rows.data(), keys.size(), pool_));
    model_.Upsert(keys, rows);
  }

  void ScatterAdd() {
    const std::vector<int64_t> keys = SomeKeys();
    const std::vector<float> deltas = random_.Floats(keys.size() * options_.dim);
    EXPECT_OK(table_->ScatterAdd(keys.data(), deltas.data(), keys.size(), pool_));
    model_.ScatterAdd(keys, deltas);
  }

  void Remove() {
    const std::vector<int64_t> keys = SomeKeys();
    EXPECT_OK(table_->Remove(keys.data(), keys.size(), pool_));
    for (int64_t key : keys) model_.Remove(key);
  }

  void Contains() {
    const std::vector<int64_t> keys = SomeKeys();
    const std::unique_ptr<bool[]> out(new bool[keys.size()]);
    EXPECT_OK(table_->Contains(keys.data(), keys.size(), out.get(), pool_));
    for (size_t i = 0; i < keys.size(); ++i) EXPECT_EQ(out[i], model_.Contains(keys[i]));
  }

  void ReadRows() {
    const std::vector<int64_t> keys = SomeKeys();
    std::vector<float> rows;
    EXPECT_OK(table_->ReadRows(
        keys.data(), keys.size(),
        [&](int64_t width) {
          rows.assign(keys.size() * width, -9.0f);
          return rows.data();
        },
        pool_));
    EXPECT_EQ(rows, model_.ReadRows(keys));
  }

  std::vector<double> SomeAmounts(int64_t n) {
    std::vector<double> amounts(n * options_.key_counts.width);
    for (double& amount : amounts) amount = random_.OneIn(30) ? 0x1p40 : random_.Below(4);
    return amounts;
  }

  void Count() {
    if (options_.key_counts.width == 0) return;  // key_counts_test.cc's
    const std::vector<int64_t> keys = DifferentKeys();
    const std::vector<double> amounts = SomeAmounts(keys.size());
    EXPECT_OK(table_->Count(keys.data(), amounts.data(), keys.size(), random_.OneIn(2), pool_));
    model_.Count(keys, amounts);
  }

  // The model decays its counts at each step, the table all steps at once.
  void ExpectCounts(const std::vector<double>& got, const std::vector<double>& want) {
    EXPECT_EQ(got.size(), want.size());
    for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got[i], want[i], 1e-9 * want[i]);
  }

  void GetCounts() {
    const std::vector<int64_t> keys = SomeKeys();
    std::vector<double> out(keys.size() * options_.key_counts.width, -9.0);
    EXPECT_OK(table_->GetCounts(keys.data(), keys.size(), out.data(), pool_));
    ExpectCounts(out, model_.GetCounts(keys));
  }

  // In parts of random size.
  void Export() {
    const bool with_state = random_.OneIn(2);
    const int64_t most = random_.OneIn(5) ? kNoLimit : 1 + random_.Below(2 * all_keys_.size());
    Content content;
    int64_t next = 0;
    do {
      next = ExportPart(table_.get(), with_state, next, 1 + random_.Below(most), &content);
    } while (next != -1 && !HasFailure());
    EXPECT_EQ(content.rule, with_state ? model_.rule() : "");
    EXPECT_EQ(content.num_counts, options_.key_counts.width);
    ExpectSameRows(content.RowsByKey(), model_.Export(with_state));
    ExpectCounts(content.counts, model_.GetCounts(content.keys));
    if (random_.OneIn(3)) exported_ = content;
    int64_t rows = 0;
    // State that is restored may be of any sign, and then an update makes NaN.
    EXPECT_OK(table_->Check({}, /*finite=*/false, pool_, &rows));
    EXPECT_EQ(rows, model_.size());
  }

  // By rows that were exported before, perhaps under another optimizer, or by any.
  void Restore() {
    Content content = exported_;
    if (random_.OneIn(2)) {
      content = ExportAll(table_.get(), true);  // the rule and the number of counts
      content.keys = DifferentKeys();
      content.width = options_.dim + random_.Below(3) * random_.Below(options_.dim + 2);
      content.rows = random_.Floats(content.size() * content.width);
      content.counts = SomeAmounts(content.size());
      if (random_.OneIn(4)) content.rule = "sgd";
    }
    if (random_.OneIn(4)) content.counts.clear();
    const Status status = table_->Restore(content.view(), content.rule, pool_);
    if (!model_.CanRestore(content)) {
      EXPECT_ERROR(status, Code::kInvalidArgument, "rows with the state of rule");
      return;
    }
    EXPECT_OK(status);
    model_.Restore(content);
  }

  void Save() {
    saved_rows_ = ExportAll(table_.get(), true);
    EXPECT_OK(table_->Save(/*with_state=*/true, &saved_, pool_));
  }

  void Load() {
    if (saved_rows_.keys.empty()) return;
    LoadReport report;
    EXPECT_OK(table_->Load(&saved_, pool_, &report));
    model_.Restore(saved_rows_);
  }

  // Saves the table, or what has changed in it, and loads that with what it follows into another.
  void SaveInChain() {
    bool everything = false;
    int64_t most = 0;
    EXPECT_OK(table_->Changes(log_, &everything, &most));
    const bool increment = !everything && random_.Below(8) != 0;
    const auto save = std::make_shared<SavedRows>();
    EXPECT_OK(table_->SaveInChain(log_, "save", increment, save.get(), pool_));
    if (increment) EXPECT_LE(save->size(), most);
    auto chain = increment ? chain_ : std::vector<std::shared_ptr<SavedRows>>();
    chain.push_back(save);

    std::vector<RowSource*> sources;
    for (const auto& saved : chain) sources.push_back(saved.get());
    const auto loaded = NewTable(options_);
    LoadReport report;
    EXPECT_OK(loaded->LoadChains({sources}, {}, 0, pool_, &report));
    ExpectSameContent(ExportAll(loaded.get(), true), ExportAll(table_.get(), true));
    // What is not confirmed is in the next one again.
    if (random_.Below(4) == 0) return;
    EXPECT_OK(table_->ConfirmSave(log_));
    chain_ = std::move(chain);
  }

  void Bind() {
    static const RuleCall kRules[] = {{"sgd", {0.1f, 0.01f}, 1},
                                      {"row_wise_adagrad", {0.1f, 1e-8f, 0.0f}, 1},
                                      {"row_wise_adam", {0.1f, 0.9f, 0.999f, 1e-8f, 0.01f}, 1}};
    rule_ = kRules[random_.Below(3)];
    RuleInfo info;
    EXPECT_OK(FindRule(rule_.rule, &info));
    const std::vector<float> state(info.state_width(options_.dim), 0.25f * random_.Below(4));
    const int64_t old_token = token_;
    EXPECT_OK(table_->Bind(rule_.rule, state, pool_, &token_));
    EXPECT_TRUE(token_ != 0 && token_ != old_token);
    model_.Bind(rule_.rule, state);
  }

  const TableOptions options_;
  const std::vector<int64_t> all_keys_;
  WorkerPool* const pool_;
  const std::unique_ptr<Table> table_;
  TableModel model_;
  Random random_;
  RuleCall rule_{"sgd", {0.1f, 0.01f}, 1};
  int64_t token_ = 0;
  Content exported_;
  Content saved_rows_;
  SavedRows saved_;  // the same
  const int64_t log_;
  std::vector<std::shared_ptr<SavedRows>> chain_;  // of the saves that were confirmed
};

}  // namespace testing
}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_TESTS_CC_TABLE_OPERATIONS_H_
