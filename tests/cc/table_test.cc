// Every storage is a map from keys to rows: random operations against a model.
#include "cc/lib/table.h"

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
  RandomOperations(const TableOptions& options, std::vector<int64_t> keys, WorkerPool* pool)
      : options_(options),
        all_keys_(std::move(keys)),
        pool_(pool),
        table_(NewTable(options)),
        model_(options) {}

  void Run(int64_t operations) {
    Bind();
    for (int64_t i = 0; i < operations && !HasFailure(); ++i) {
      Step();
      EXPECT_EQ(table_->Size(), model_.size());
      if (HasFailure()) std::printf("  after %ld operations\n", static_cast<long>(i));
    }
    Export();
  }

 private:
  void Step() {
    const int64_t what = random_.Below(1000);
    if (what < 500) {
      Lookup();
    } else if (what < 700) {
      Update();
    } else if (what < 800) {
      Upsert();
    } else if (what < 900) {
      Remove();
    } else if (what < 990) {
      Contains();
    } else if (what < 995) {
      Export();
    } else if (what < 998) {
      Bind();
    } else if (random_.OneIn(3)) {
      table_->Clear();
      model_.Clear();
    }
  }

  std::vector<int64_t> SomeKeys() {
    std::vector<int64_t> keys(random_.Below(random_.OneIn(50) ? 500 : 12));
    for (int64_t& key : keys) key = all_keys_[random_.Below(all_keys_.size())];
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
    EXPECT_OK(table_->Update(keys.data(), grads.data(), keys.size(), rule_,
                             random_.OneIn(2) ? token_ : 0, random_.OneIn(2), pool_));
    model_.Update(keys, grads, rule_);
  }

  void Upsert() {
    const std::vector<int64_t> keys = SomeKeys();
    const std::vector<float> rows = random_.Floats(keys.size() * options_.dim);
    EXPECT_OK(table_->Upsert(keys.data(), rows.data(), keys.size(), pool_));
    model_.Upsert(keys, rows);
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

  void Export() {
    const bool with_state = random_.OneIn(2);
    ExpectSameRows(ExportRows(table_.get(), with_state), model_.Export(with_state));
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
    model_.Bind(state);
  }

  const TableOptions options_;
  const std::vector<int64_t> all_keys_;
  WorkerPool* const pool_;
  const std::unique_ptr<Table> table_;
  TableModel model_;
  Random random_{42};
  RuleCall rule_;
  int64_t token_ = 0;
};

void RunOnEveryStorage(int64_t operations, int64_t dim, WorkerPool* pool) {
  for (const std::string storage : kAllStorages) {
    SCOPED_TRACE(storage, " with ", pool->num_threads(), " threads");
    const bool index = storage == "index";
    RandomOperations(UniformTable(storage, dim, index ? 900 : -1),
                     index ? DenseKeys(900) : HardKeys(400), pool)
        .Run(Repeats(operations));
  }
}

TEST(EveryStorageIsAMapFromKeysToRows) {
  SerialPool pool;
  RunOnEveryStorage(100000, 5, &pool);
}

TEST(EveryStorageGivesTheSameBitsWithFourThreads) {
  StdThreadPool pool(4);
  RunOnEveryStorage(2000, 5, &pool);
}

TEST(RowsWiderThanAVectorRegisterAreKeptWhole) {
  SerialPool pool;
  RunOnEveryStorage(5000, 67, &pool);
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
