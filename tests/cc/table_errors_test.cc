// A method of a table that returns an error has changed nothing.
#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "tests/cc/keys.h"
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
    before_ = ExportRows(table_.get(), true);
  }

  void ExpectUnchanged() { ExpectSameRows(ExportRows(table_.get(), true), before_); }

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
  const std::unique_ptr<Table> table_;
  int64_t token_ = 0;
  int64_t stale_token_ = 0;
  Rows before_;
};

void OnEveryStorage(const std::function<void(TableOptions)>& test) {
  for (const std::string storage : kAllStorages) {
    SCOPED_TRACE(storage);
    test(UniformTable(storage, kDim, 100));
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
                          "rule must be one of sgd, row_wise_adagrad, row_wise_adam");
    bad.ExpectBindError("adamax", {}, "got 'adamax'");
    bad.ExpectBindError("row_wise_adam", {0.0f},
                        "initial_state of rule row_wise_adam must have 4 values for rows of width "
                        "3, got 1");
    bad.ExpectBindError("sgd", {0.0f}, "must have 0 values");
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

TEST(MakeTableNamesABadArgument) {
  const auto expect_error = [](TableOptions options, const std::string& part) {
    std::unique_ptr<Table> table;
    EXPECT_ERROR(MakeTable(options, &table), Code::kInvalidArgument, part);
    EXPECT_TRUE(table == nullptr);
  };
  for (int64_t dim : {0, -1}) {
    expect_error(UniformTable("slab", dim), Join("dim must be positive, got ", dim));
  }
  for (int64_t input_dim : {0, -2}) {
    expect_error(UniformTable("slab", 1, input_dim), Join("input_dim must be positive, or -1"));
  }
  expect_error(UniformTable("index", 1), "storage index needs an input_dim");
  expect_error(UniformTable("sparse", 1),
               "storage must be one of unordered_map, open_addressing, chained, slab, index, got "
               "'sparse'");
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
void BindWithoutMemory(const std::string& storage) {
  SerialPool pool;
  mallopt(M_MMAP_THRESHOLD, 128 << 10);  // large blocks go back to the system when they are freed
  constexpr int64_t kKeys = 20000, kWidth = 500;
  const auto table = NewTable(UniformTable(storage, kWidth, kKeys));
  const std::vector<int64_t> keys = DenseKeys(kKeys);
  std::vector<float> initial(kKeys * kWidth), now(kKeys * kWidth);
  EXPECT_OK(table->Lookup(keys.data(), kKeys, true, Missing::kInitial, initial.data(), &pool));
  int64_t token = 0;
  EXPECT_OK(table->Bind("sgd", {}, &pool, &token));

  const std::vector<float> state(kWidth + 1, 0.5f);
  malloc_trim(0);
  long pages = 0;
  FILE* statm = std::fopen("/proc/self/statm", "r");
  EXPECT_EQ(std::fscanf(statm, "%ld", &pages), 1);
  std::fclose(statm);
  rlimit old_limit;
  getrlimit(RLIMIT_AS, &old_limit);
  rlimit limit = old_limit;
  limit.rlim_cur = pages * sysconf(_SC_PAGESIZE) + (16 << 20);
  setrlimit(RLIMIT_AS, &limit);
  const Status status = table->Bind("row_wise_adam", state, &pool, &token);
  setrlimit(RLIMIT_AS, &old_limit);

  EXPECT_ERROR(status, Code::kResourceExhausted, "out of memory in table 'item'");
  EXPECT_EQ(table->Size(), kKeys);
  EXPECT_ERROR(table->Update(keys.data(), initial.data(), 1, kSgd, 0, true, &pool),
               Code::kFailedPrecondition, "is bound to no optimizer");
  EXPECT_OK(table->Lookup(keys.data(), kKeys, false, Missing::kZeros, now.data(), &pool));
  EXPECT_EQ(now, initial);

  EXPECT_OK(table->Bind("row_wise_adam", state, &pool, &token));
  for (const auto& [key, row] : ExportRows(table.get(), true)) {
    EXPECT_TRUE(std::equal(row.begin(), row.begin() + kWidth, initial.data() + key * kWidth));
    EXPECT_TRUE(std::equal(row.begin() + kWidth, row.end(), state.begin()));
  }
}

// Each storage in a process of its own, where no memory that other tests gave back is at hand.
TEST(ABindWithoutMemoryKeepsAllEmbeddings) {
  if (kSanitized) return;
  if (const char* storage = std::getenv("BIND_WITHOUT_MEMORY")) return BindWithoutMemory(storage);
  for (const std::string storage : kAllStorages) {
    SCOPED_TRACE(storage);
    const std::string command = Join("BIND_WITHOUT_MEMORY=", storage, " exec /proc/", getpid(),
                                     "/exe ABindWithoutMemoryKeepsAllEmbeddings");
    EXPECT_EQ(std::system(command.c_str()), 0);
  }
}

}  // namespace
}  // namespace testing
}  // namespace sparse_emb
