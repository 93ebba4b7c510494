// Every storage is a map from keys to rows: random operations against a model.
#include "cc/lib/table.h"

#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "tests/cc/keys.h"
#include "tests/cc/table_model.h"
#include "tests/cc/testing.h"

namespace sparse_emb {
namespace testing {
namespace {

// Does the same random operations to a table and to its model and compares all that they return,
// bit by bit: with any pool the results are the model's, so they do not depend on the pool.
class RandomOperations {
 public:
  RandomOperations(const TableOptions& options, std::vector<int64_t> keys, WorkerPool* pool,
                   uint64_t seed = 42)
      : options_(options),
        all_keys_(std::move(keys)),
        pool_(pool),
        table_(NewTable(options)),
        model_(options),
        random_(seed) {}

  void Run(int64_t operations) {
    saved_ = ExportAll(table_.get(), true);
    for (int64_t i = 0; i < operations && !HasFailure(); ++i) {
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
    if (what < 400) {
      Lookup();
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
    } else if (what < 980) {
      GetCounts();
    } else if (what < 990) {
      Export();
    } else if (what < 995) {
      Restore();
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

  std::vector<int64_t> DifferentKeys() {
    std::vector<int64_t> keys;
    std::set<int64_t> seen;
    for (int64_t key : SomeKeys()) {
      if (seen.insert(key).second) keys.push_back(key);
    }
    return keys;
  }

  void Lookup() {
    const std::vector<int64_t> keys = SomeKeys();
    const bool insert = random_.OneIn(2);
    const Missing missing = random_.OneIn(2) ? Missing::kZeros : Missing::kInitial;
    std::vector<float> out(keys.size() * options_.dim, -9.0f);
    EXPECT_OK(table_->Lookup(keys.data(), keys.size(), insert, missing, out.data(), pool_));
    EXPECT_EQ(out, model_.Lookup(keys, insert, missing));
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
    if (random_.OneIn(3)) saved_ = content;
  }

  // By rows that were exported before, perhaps under another optimizer, or by any.
  void Restore() {
    Content content = saved_;
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
  Content saved_;
};

// With a padding key or not, max_norm or not, counts or not.
std::vector<TableOptions> EveryOption(const TableOptions& plain, int64_t padding_key) {
  static const MaxNorm kNorms[] = {{0.7f, 2.0f}, {1.4f, 1.0f}, {0.4f, INFINITY}, {6.0f, 0.5f}};
  std::vector<TableOptions> all(8, plain);
  for (int i = 0; i < 8; ++i) {
    if (i & 1) all[i].padding_key = padding_key;
    if (i & 2) all[i].max_norm = kNorms[(i & 1) + (i & 4) / 2];
    if (i & 4) all[i].key_counts = {i & 1 ? 3 : 1, i & 2 ? 0.5 : 1.0};
  }
  return all;
}

void RunOnEveryStorage(int64_t operations, int64_t dim, WorkerPool* pool) {
  uint64_t seed = 42;
  for (const std::string storage : kAllStorages) {
    const bool index = storage == "index";
    const std::vector<int64_t> keys = index ? DenseKeys(900) : HardKeys(400);
    for (const TableOptions& options :
         EveryOption(UniformTable(storage, dim, index ? 900 : -1), keys[keys.size() / 2])) {
      SCOPED_TRACE(storage, ", padding key ", options.padding_key.has_value(), ", max_norm ",
                   options.max_norm.limit, ", ", options.key_counts.width, " counts, ",
                   pool->num_threads(), " threads");
      RandomOperations(options, keys, pool, seed++).Run(Repeats(operations / 8));
    }
  }
}

TEST(EveryStorageIsAMapFromKeysToRows) {
  SerialPool pool;
  RunOnEveryStorage(100000, 5, &pool);
}

TEST(EveryStorageGivesTheSameBitsWithFourThreads) {
  StdThreadPool pool(4);
  RunOnEveryStorage(1200, 5, &pool);
}

TEST(RowsWiderThanAVectorRegisterAreKeptWhole) {
  SerialPool pool;
  RunOnEveryStorage(10000, 67, &pool);
}

// The keys of an index table fill its shards exactly, in part, or leave some empty.
TEST(AnIndexTableTakesEveryInputDim) {
  SerialPool pool;
  for (int64_t input_dim : {1, 2, 63, 64, 65, 127, 128, 129, 1000, 4097}) {
    SCOPED_TRACE("input_dim ", input_dim);
    RandomOperations(UniformTable("index", 3, input_dim), DenseKeys(input_dim), &pool)
        .Run(Repeats(2000));
  }
}

TEST(AHashStorageWithInputDimIsTheSameMap) {
  SerialPool pool;
  RandomOperations(UniformTable("slab", 3, 100), DenseKeys(100), &pool).Run(Repeats(2000));
}

// A sum of many deltas is cut up among four threads.
TEST(ScatterAddGivesTheSameBitsWithAnyThreads) {
  constexpr int64_t kDim = 17, kKeys = 300, kDeltas = 5000;
  for (const std::string storage : kAllStorages) {
    Random random(3);
    std::vector<int64_t> keys(kDeltas);
    for (int64_t& key : keys) key = random.Below(1 + random.Below(kKeys));
    const std::vector<float> deltas = random.Floats(kDeltas * kDim);
    const TableOptions options = UniformTable(storage, kDim, kKeys);
    TableModel model(options);
    model.ScatterAdd(keys, deltas);
    model.ScatterAdd(keys, deltas);
    for (int threads : {1, 2, 4}) {
      SCOPED_TRACE(storage, ", ", threads, " threads");
      StdThreadPool pool(threads);
      const auto table = NewTable(options);
      for (int i = 0; i < 2; ++i) {
        EXPECT_OK(table->ScatterAdd(keys.data(), deltas.data(), kDeltas, &pool));
      }
      ExpectSameRows(ExportRows(table.get(), false), model.Export(false));
    }
  }
}

// A full index table skips its flags; that must end with the first removal.
TEST(AFullIndexTableCanLoseKeysAgain) {
  SerialPool pool;
  const int64_t dim = 2;
  const auto table = NewTable(UniformTable("index", dim, 200));
  TableModel model(table->options());
  const std::vector<int64_t> keys = DenseKeys(200);
  std::vector<float> out(200 * dim);
  for (int round = 0; round < 3; ++round) {
    EXPECT_OK(table->Lookup(keys.data(), 200, true, Missing::kInitial, out.data(), &pool));
    EXPECT_EQ(table->Size(), 200);
    const int64_t gone[] = {0, 77, 199};
    EXPECT_OK(table->Remove(gone, 3, &pool));
    EXPECT_OK(table->Lookup(keys.data(), 200, false, Missing::kZeros, out.data(), &pool));
    for (int64_t key : keys) {
      const bool is_gone = key == 0 || key == 77 || key == 199;
      EXPECT_EQ(out[key * dim], is_gone ? 0.0f : model.Initial(key)[0]);
    }
    if (round == 1) table->Clear();
  }
}

}  // namespace
}  // namespace testing
}  // namespace sparse_emb
