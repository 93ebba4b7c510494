// A method of a table that returns an error has changed nothing.
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "tests/cc/keys.h"
#include "tests/cc/memory_limit.h"
#include "tests/cc/table_model.h"
#include "tests/cc/testing.h"

namespace sparse_emb {
namespace testing {
namespace {

constexpr int64_t kDim = 3;
const RuleCall kSgd{"sgd", {1.0f, 0.0f}, 1};
const RuleCall kAdagrad{"row_wise_adagrad", {1.0f, 1e-8f, 0.0f}, 1};

// A table with keys 0 to 7 under row-wise Adagrad, whose methods are called with bad arguments.
class BadCalls {
 public:
  explicit BadCalls(TableOptions options) : table_(NewTable(options)) {
    const std::vector<int64_t> keys = DenseKeys(8);
    EXPECT_OK(table_->Bind("row_wise_adagrad", {0.5f}, &pool_, &stale_token_));
    EXPECT_OK(table_->Bind("row_wise_adagrad", {0.5f}, &pool_, &token_));
    EXPECT_OK(table_->Update(keys.data(), values_.data(), 8, kAdagrad, token_, false, &pool_));
    if (options.key_counts.width > 0) {
      EXPECT_OK(table_->Count(keys.data(), amounts_.data(), 8, false, &pool_));
    }
    before_ = ExportAll(table_.get(), true);
  }

  void ExpectUnchanged() { ExpectSameContent(ExportAll(table_.get(), true), before_); }

  void ExpectLookupError(std::vector<int64_t> keys, bool insert, Code code,
                         const std::string& part) {
    std::vector<float> out(keys.size() * kDim);
    EXPECT_ERROR(
        table_->Lookup(keys.data(), keys.size(), insert, Missing::kInitial, out.data(), &pool_),
        code, part);
    ExpectUnchanged();
  }
  void ExpectUpdateError(std::vector<int64_t> keys, const RuleCall& rule, int64_t token, Code code,
                         const std::string& part) {
    EXPECT_ERROR(
        table_->Update(keys.data(), values_.data(), keys.size(), rule, token, false, &pool_), code,
        part);
    ExpectUnchanged();
  }
  void ExpectUpsertError(std::vector<int64_t> keys, Code code, const std::string& part) {
    EXPECT_ERROR(table_->Upsert(keys.data(), values_.data(), keys.size(), &pool_), code, part);
    ExpectUnchanged();
  }
  void ExpectScatterAddError(std::vector<int64_t> keys, Code code, const std::string& part) {
    EXPECT_ERROR(table_->ScatterAdd(keys.data(), values_.data(), keys.size(), &pool_), code, part);
    ExpectUnchanged();
  }
  void ExpectCountError(std::vector<int64_t> keys, Code code, const std::string& part) {
    EXPECT_ERROR(table_->Count(keys.data(), amounts_.data(), keys.size(), false, &pool_), code,
                 part);
    ExpectUnchanged();
  }
  void ExpectGetCountsError(std::vector<int64_t> keys, Code code, const std::string& part) {
    double out[16];
    EXPECT_ERROR(table_->GetCounts(keys.data(), keys.size(), out, &pool_), code, part);
  }
  void ExpectRestoreError(std::vector<int64_t> keys, int64_t width, Code code,
                          const std::string& part) {
    Content content{keys, Random(6).Floats(keys.size() * width), {}, width, 0, "row_wise_adagrad"};
    EXPECT_ERROR(table_->Restore(content.view(), content.rule, &pool_), code, part);
    ExpectUnchanged();
  }
  void ExpectReadRowsError(std::vector<int64_t> keys, Code code, const std::string& part) {
    const auto allocate = [](int64_t) -> float* {
      EXPECT_TRUE(false);
      return nullptr;
    };
    EXPECT_ERROR(table_->ReadRows(keys.data(), keys.size(), allocate, &pool_), code, part);
  }
  void SpoilAmount(int64_t i, double value) { amounts_[i] = value; }
  // The table still takes updates from the optimizer that it is bound to.
  void ExpectBound() {
    const int64_t key = 3;
    EXPECT_OK(table_->Update(&key, values_.data(), 1, kAdagrad, token_, false, &pool_));
    before_ = ExportAll(table_.get(), true);
  }
  void ExpectRemoveError(std::vector<int64_t> keys, Code code, const std::string& part) {
    EXPECT_ERROR(table_->Remove(keys.data(), keys.size(), &pool_), code, part);
    ExpectUnchanged();
  }
  void ExpectContainsError(std::vector<int64_t> keys, Code code, const std::string& part) {
    bool out[8];
    EXPECT_ERROR(table_->Contains(keys.data(), keys.size(), out, &pool_), code, part);
  }
  void ExpectBindError(const std::string& rule, std::vector<float> state, const std::string& part) {
    int64_t token = -5;
    EXPECT_ERROR(table_->Bind(rule, state, &pool_, &token), Code::kInvalidArgument, part);
    EXPECT_EQ(token, -5);
    ExpectUnchanged();
  }

  Table* table() { return table_.get(); }
  int64_t token() const { return token_; }
  int64_t stale_token() const { return stale_token_; }

 private:
  SerialPool pool_;
  const std::vector<float> values_ = Random(5).Floats(16 * kDim);
  std::vector<double> amounts_ = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
  const std::unique_ptr<Table> table_;
  int64_t token_ = 0;
  int64_t stale_token_ = 0;
  Content before_;
};

void OnEveryStorage(const std::function<void(TableOptions)>& test) {
  for (const std::string storage : kAllStorages) {
    SCOPED_TRACE(storage);
    TableOptions options = UniformTable(storage, kDim, 100);
    test(options);
    options.key_counts.width = 2;
    test(options);
  }
}

TEST(AKeyOutOfRangeChangesNothing) {
  OnEveryStorage([](TableOptions options) {
    BadCalls bad(options);
    for (int64_t key : {int64_t{-1}, int64_t{100}, INT64_MIN, INT64_MAX}) {
      const std::string part =
          Join("keys must be in [0, 100), got keys[2] = ", key, " (table 'item')");
      const std::vector<int64_t> keys = {1, 50, key, 51};
      bad.ExpectLookupError(keys, true, Code::kInvalidArgument, part);
      bad.ExpectLookupError(keys, false, Code::kInvalidArgument, part);
      bad.ExpectUpdateError(keys, kAdagrad, bad.token(), Code::kInvalidArgument, part);
      bad.ExpectUpsertError(keys, Code::kInvalidArgument, part);
      bad.ExpectScatterAddError(keys, Code::kInvalidArgument, part);
      bad.ExpectCountError(keys, Code::kInvalidArgument, part);
      bad.ExpectGetCountsError(keys, Code::kInvalidArgument, part);
      bad.ExpectReadRowsError(keys, Code::kInvalidArgument, part);
      bad.ExpectRestoreError(keys, kDim + 1, Code::kInvalidArgument, part);
      bad.ExpectRemoveError(keys, Code::kInvalidArgument, part);
      bad.ExpectContainsError(keys, Code::kInvalidArgument, part);
    }
  });
}

TEST(ABadUpdateChangesNothing) {
  OnEveryStorage([](TableOptions options) {
    BadCalls bad(options);
    const std::vector<int64_t> keys = {1, 2, 60};
    const int64_t token = bad.token();
    bad.ExpectUpdateError({1, 60, 2, 60, 1}, kAdagrad, token, Code::kInvalidArgument,
                          "keys must differ, got key 60 at positions 1 and 3 (table 'item')");
    bad.ExpectUpdateError(keys, kSgd, token, Code::kFailedPrecondition,
                          "is bound to rule row_wise_adagrad, got an update by rule sgd");
    bad.ExpectUpdateError(keys, kAdagrad, bad.stale_token(), Code::kFailedPrecondition,
                          "has since been bound to another optimizer (rule row_wise_adagrad)");
    bad.ExpectUpdateError(keys, kAdagrad, token + 1, Code::kFailedPrecondition,
                          "bound to another optimizer");
    bad.ExpectUpdateError(
        keys, {"row_wise_adagrad", {1.0f, 1e-8f}, 1}, token, Code::kInvalidArgument,
        "hypers of rule row_wise_adagrad must be [learning_rate, epsilon, weight_decay], "
        "got 2 values");
    bad.ExpectUpdateError(keys, {"row_wise_adagrad", {1.0f, 1e-8f, 0.0f, 0.0f}, 1}, token,
                          Code::kInvalidArgument, "got 4 values");
    for (int64_t step : {0, -1}) {
      bad.ExpectUpdateError(keys, {"row_wise_adagrad", {1.0f, 1e-8f, 0.0f}, step}, token,
                            Code::kInvalidArgument, Join("step must be at least 1, got ", step));
    }
    bad.ExpectUpdateError(keys, {"adamax", {}, 1}, token, Code::kInvalidArgument,
                          "rule must be one of sgd, momentum, adagrad, row_wise_adagrad");
    bad.ExpectBindError("adamax", {}, "got 'adamax'");
    bad.ExpectBindError("row_wise_adam", {0.0f},
                        "initial_state of rule row_wise_adam must have 4 values for rows of width "
                        "3, got 1");
    bad.ExpectBindError("sgd", {0.0f}, "must have 0 values");
  });
}

TEST(ABadCountChangesNothing) {
  OnEveryStorage([](TableOptions options) {
    BadCalls bad(options);
    bad.ExpectCountError({1, 60, 2, 60, 1}, Code::kInvalidArgument,
                         "keys must differ, got key 60 at positions 1 and 3 (table 'item')");
    if (options.key_counts.width > 0) {
      bad.SpoilAmount(5, NAN);  // with two counts a key, of the third key
      bad.ExpectCountError({1, 60, 2}, Code::kInvalidArgument,
                           "amounts must be finite, got nan for key 2 (table 'item')");
    }
    bad.ExpectBound();
  });
}

TEST(ABadRestoreChangesNothing) {
  OnEveryStorage([](TableOptions options) {
    BadCalls bad(options);
    const Code code = Code::kInvalidArgument;
    bad.ExpectRestoreError({1, 60, 2, 60, 1}, kDim, code,
                           "keys must differ, got key 60 at positions 1 and 3 (table 'item')");
    for (int64_t width : {kDim, kDim + 2}) {
      bad.ExpectRestoreError(
          {5, 6}, width, code,
          Join("rows with the state of rule row_wise_adagrad must be 4 wide, got ", width));
    }
    bad.ExpectRestoreError({5, 6}, kDim - 1, code, "rows must be at least 3 wide, got 2");
    bad.ExpectRestoreError({}, 0, code, "rows must be at least 3 wide, got 0");
    bad.ExpectBound();
  });
}

TEST(AnUnboundTableTakesNoUpdate) {
  SerialPool pool;
  OnEveryStorage([&](TableOptions options) {
    const auto table = NewTable(options);
    const int64_t keys[] = {1};
    const float grads[kDim] = {};
    EXPECT_ERROR(table->Update(keys, grads, 1, kSgd, 0, false, &pool), Code::kFailedPrecondition,
                 "table 'item' is bound to no optimizer; bind it to rule sgd first");
    EXPECT_EQ(table->Size(), 0);
  });
}

TEST(ATableWithMaxRowsTakesNoMore) {
  OnEveryStorage([](TableOptions options) {
    options.max_rows = 10;
    BadCalls bad(options);  // 8 rows
    const std::string part = "table 'item' has 8 of max_rows = 10 rows and cannot take 3 more";
    const std::vector<int64_t> keys = {1, 60, 61, 60, 62};
    bad.ExpectLookupError(keys, true, Code::kResourceExhausted, part);
    bad.ExpectUpsertError(keys, Code::kResourceExhausted, part);
    bad.ExpectScatterAddError(keys, Code::kResourceExhausted, part);
    bad.ExpectRestoreError(DenseKeys(11), kDim + 1, Code::kResourceExhausted,
                           "table 'item' has max_rows = 10 and cannot take 11 rows");
    bad.ExpectUpdateError({1, 60, 61, 62}, kAdagrad, bad.token(), Code::kResourceExhausted, part);

    SerialPool pool;
    std::vector<float> out(keys.size() * kDim);
    Table* table = bad.table();
    EXPECT_OK(table->Lookup(keys.data(), 5, false, Missing::kInitial, out.data(), &pool));
    EXPECT_EQ(table->Size(), 8);
    EXPECT_OK(table->Lookup(keys.data(), 4, true, Missing::kInitial, out.data(), &pool));
    EXPECT_OK(table->Lookup(keys.data(), 4, true, Missing::kInitial, out.data(), &pool));
    EXPECT_EQ(table->Size(), 10);
    EXPECT_OK(table->Remove(keys.data(), 1, &pool));
    EXPECT_OK(table->Upsert(keys.data() + 4, out.data(), 1, &pool));
    EXPECT_EQ(table->Size(), 10);
  });
}

TEST(CheckUpdateForetellsTheErrorOfAnUpdate) {
  OnEveryStorage([](TableOptions options) {
    BadCalls bad(options);
    SerialPool pool;
    const RuleCall calls[] = {kAdagrad,
                              kSgd,
                              {"adamax", {}, 1},
                              {"row_wise_adagrad", {1.0f}, 1},
                              {"row_wise_adagrad", {1.0f, NAN, 0.0f}, 1},
                              {"row_wise_adagrad", {1.0f, 1e-8f, 0.0f}, 0}};
    int errors = 0;
    for (const RuleCall& call : calls) {
      for (int64_t token : {int64_t{0}, bad.token(), bad.stale_token(), bad.token() + 1}) {
        const Status foretold = bad.table()->CheckUpdate(call, token);
        bad.ExpectUnchanged();
        const Status status =
            bad.table()->Update(nullptr, nullptr, 0, call, token, /*keys_differ=*/true, &pool);
        EXPECT_EQ(foretold.code, status.code);
        EXPECT_EQ(foretold.message, status.message);
        errors += !status.ok();
      }
    }
    EXPECT_EQ(errors, 4 * 6 - 2);
    const auto unbound = NewTable(options);
    EXPECT_ERROR(unbound->CheckUpdate(kSgd, 0), Code::kFailedPrecondition,
                 "table 'item' is bound to no optimizer");
  });
}

TEST(CheckRoomForetellsThatATableIsFull) {
  SerialPool pool;
  OnEveryStorage([&](TableOptions options) {
    const auto check = [&](Table* table, const std::vector<int64_t>& keys) {
      return table->CheckRoom(keys.data(), keys.size(), &pool);
    };
    EXPECT_OK(check(NewTable(options).get(), DenseKeys(100)));
    options.max_rows = 10;
    options.padding_key = 99;
    BadCalls bad(options);  // 8 rows
    EXPECT_OK(check(bad.table(), {}));
    EXPECT_OK(check(bad.table(), {1, 60, 2, 61, 3, 99}));
    const std::string part = "table 'item' has 8 of max_rows = 10 rows and cannot take 3 more";
    EXPECT_ERROR(check(bad.table(), {1, 60, 61, 99, 62}), Code::kResourceExhausted, part);
    // A lookup may name an absent key twice: it needs one row.
    EXPECT_OK(check(bad.table(), {60, 61, 60, 1, 61, 61}));
    EXPECT_ERROR(check(bad.table(), {60, 61, 60, 62}), Code::kResourceExhausted, part);
    bad.ExpectUpdateError({1, 60, 61, 99, 62}, kAdagrad, bad.token(), Code::kResourceExhausted,
                          part);
    bad.ExpectLookupError({1, 60, 61, 99, 62}, true, Code::kResourceExhausted, part);
  });
}

TEST(MakeTableNamesABadArgument) {
  const auto expect_error = [](TableOptions options, const std::string& part) {
    std::unique_ptr<Table> table;
    EXPECT_ERROR(MakeTable(options, &table), Code::kInvalidArgument, part);
    EXPECT_TRUE(table == nullptr);
  };
  for (int64_t dim : {0, -1}) {
    expect_error(UniformTable("slab", dim), Join("dim must be positive, got ", dim));
  }
  const int64_t too_wide = (int64_t{1} << 46) + 1;
  expect_error(UniformTable("slab", too_wide), Join("dim must be at most 2^46, got ", too_wide));
  for (int64_t input_dim : {0, -2}) {
    expect_error(UniformTable("slab", 1, input_dim), Join("input_dim must be positive, or -1"));
  }
  expect_error(UniformTable("index", 1), "storage index needs an input_dim");
  expect_error(UniformTable("sparse", 1),
               "storage must be one of unordered_map, open_addressing, chained, slab, index, got "
               "'sparse'");
  TableOptions options = UniformTable("slab", 1);
  for (float limit : {-1.0f, -INFINITY, NAN}) {
    options.max_norm.limit = limit;
    expect_error(options, Join("max_norm must be positive, or 0 for none, got ", limit));
  }
  options.max_norm.limit = 1;
  for (float p : {0.0f, -1.0f, -INFINITY, NAN}) {
    options.max_norm.p = p;
    expect_error(options, Join("norm_type must be positive, got ", p));
  }
  options = UniformTable("slab", 1);
  options.key_counts.width = -1;
  expect_error(options, "num_counts must not be negative, got -1");
  options.key_counts.width = (1 << 20) + 1;
  expect_error(options, "num_counts must be at most 2^20, got 1048577");
  options.key_counts.width = 1;
  for (double decay : {0.0, -0.5, 1.5, static_cast<double>(NAN)}) {
    options.key_counts.decay = decay;
    expect_error(options, Join("count_decay must be in (0, 1], got ", decay));
  }
}

// Rows of 2^46 floats, which no machine can hold: an error each time, not only the first.
TEST(AnInsertWithoutMemoryChangesNothing) {
  if (kSanitized) return;  // they end the process where new would throw
  SerialPool pool;
  OnEveryStorage([&](TableOptions options) {
    options.dim = int64_t{1} << 46;
    const auto table = NewTable(options);
    const int64_t keys[] = {1, 2, 3};
    for (int i = 0; i < 3; ++i) {
      EXPECT_ERROR(table->Lookup(keys, 3, true, Missing::kInitial, nullptr, &pool),
                   Code::kResourceExhausted, "out of memory in table 'item'");
      EXPECT_EQ(table->Size(), 0);
    }
  });
}

// The process may take 16 MiB more, and a Bind would need 40 MiB at least.
TEST(ABindWithoutMemoryKeepsAllEmbeddings) {
  OnEveryStorageAlone("ABindWithoutMemoryKeepsAllEmbeddings", [](const std::string& storage) {
    SerialPool pool;
    constexpr int64_t kKeys = 20000, kWidth = 500;
    const auto table = NewTable(UniformTable(storage, kWidth, kKeys));
    const std::vector<int64_t> keys = DenseKeys(kKeys);
    std::vector<float> initial(kKeys * kWidth), now(kKeys * kWidth);
    EXPECT_OK(table->Lookup(keys.data(), kKeys, true, Missing::kInitial, initial.data(), &pool));
    int64_t token = 0;
    EXPECT_OK(table->Bind("sgd", {}, &pool, &token));

    const std::vector<float> state(kWidth + 1, 0.5f);
    {
      const MemoryLimit limit(16 << 20);
      EXPECT_ERROR(table->Bind("row_wise_adam", state, &pool, &token), Code::kResourceExhausted,
                   "out of memory in table 'item'");
    }
    EXPECT_EQ(table->Size(), kKeys);
    int64_t rows;
    EXPECT_OK(table->Check({}, true, &pool, &rows));
    EXPECT_ERROR(table->Update(keys.data(), initial.data(), 1, kSgd, 0, true, &pool),
                 Code::kFailedPrecondition, "is bound to no optimizer");
    EXPECT_OK(table->Lookup(keys.data(), kKeys, false, Missing::kZeros, now.data(), &pool));
    EXPECT_EQ(now, initial);

    EXPECT_OK(table->Bind("row_wise_adam", state, &pool, &token));
    for (const auto& [key, row] : ExportRows(table.get(), true)) {
      EXPECT_TRUE(std::equal(row.begin(), row.begin() + kWidth, initial.data() + key * kWidth));
      EXPECT_TRUE(std::equal(row.begin() + kWidth, row.end(), state.begin()));
    }
  });
}

}  // namespace
}  // namespace testing
}  // namespace sparse_emb
