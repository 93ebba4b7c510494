// A table whose memory runs out says so and goes on as it was.
#include <new>
#include <string>
#include <vector>

#include "tests/cc/keys.h"
#include "tests/cc/memory_limit.h"
#include "tests/cc/table_model.h"
#include "tests/cc/testing.h"

namespace sparse_emb {
namespace testing {
namespace {

constexpr int64_t kDim = 500, kOld = 2000, kNew = 20000;  // 4 MB and 40 MB
const RuleCall kAdagrad{"row_wise_adagrad", {0.5f, 1e-8f, 0.0f}, 1};

// What the method returns, or that it threw what may be thrown.
template <class Fn>
Code CodeOf(const Fn& call) {
  try {
    return call().code;
  } catch (const std::bad_alloc&) {
    return Code::kResourceExhausted;
  }
}

// The process may take 16 MiB more. Rows of some shards have moved by the time the memory ends, and
// the update after that is one that would use the rows of the lookup before.
TEST(AnInsertWithoutMemoryLeavesTheTableUsable) {
  OnEveryStorageAlone("AnInsertWithoutMemoryLeavesTheTableUsable", [](const std::string& storage) {
    SerialPool pool;
    const TableOptions options = UniformTable(storage, kDim, kOld + kNew);
    const auto table = NewTable(options), twin = NewTable(options);
    const std::vector<int64_t> keys = DenseKeys(kOld + kNew);
    const int64_t* const old_keys = keys.data();
    const int64_t* const new_keys = keys.data() + kOld;
    std::vector<float> out(kNew * kDim), grads = Random(1).Floats(kOld * kDim);
    const auto step = [&](Table* to) {
      EXPECT_OK(to->Lookup(old_keys, kOld, true, Missing::kInitial, out.data(), &pool));
      EXPECT_OK(to->Update(old_keys, grads.data(), kOld, kAdagrad, 0, true, &pool));
    };
    int64_t token, rows;
    for (Table* to : {table.get(), twin.get()}) {
      EXPECT_OK(to->Bind("row_wise_adagrad", {0.5f}, &pool, &token));
      step(to);
      step(to);
      EXPECT_OK(to->Lookup(old_keys, kOld, true, Missing::kInitial, out.data(), &pool));
      EXPECT_OK(to->Update(old_keys, grads.data(), kOld, kAdagrad, 0, true, &pool));
    }
    EXPECT_OK(table->Lookup(old_keys, kOld, true, Missing::kInitial, out.data(), &pool));
    {
      const MemoryLimit limit(16 << 20);
      const int64_t before = AddressBytes();
      for (int round = 0; round < 3; ++round) {
        EXPECT_EQ(CodeOf([&] {
                    return table->Lookup(new_keys, kNew, true, Missing::kInitial, out.data(),
                                         &pool);
                  }),
                  Code::kResourceExhausted);
        EXPECT_EQ(CodeOf([&] { return table->Upsert(new_keys, out.data(), kNew, &pool); }),
                  Code::kResourceExhausted);
        EXPECT_EQ(CodeOf([&] { return table->ScatterAdd(new_keys, out.data(), kNew, &pool); }),
                  Code::kResourceExhausted);
        EXPECT_EQ(CodeOf([&] {
                    return table->Update(new_keys, out.data(), kNew, kAdagrad, 0, true, &pool);
                  }),
                  Code::kResourceExhausted);
      }
      EXPECT_OK(table->Check({}, true, &pool, &rows));
      EXPECT_EQ(rows, kOld);
      if (storage == "slab" || storage == "index") {  // those of the others are the heap's
        EXPECT_LE(AddressBytes() - before, 8 << 20);
      }
      EXPECT_OK(table->Update(old_keys, grads.data(), kOld, kAdagrad, 0, true, &pool));
      step(table.get());
      EXPECT_OK(table->Check({}, true, &pool, &rows));
    }
    step(twin.get());
    step(twin.get());
    ExpectSameRows(ExportRows(table.get(), true), ExportRows(twin.get(), true));
    EXPECT_OK(table->Lookup(new_keys, kNew, true, Missing::kInitial, out.data(), &pool));
    EXPECT_OK(table->Check({}, true, &pool, &rows));
    EXPECT_EQ(rows, kOld + kNew);
  });
}

// Not even for what it has to remember: it works where nothing is left.
TEST(ARemovalTakesNoMemory) {
  SerialPool pool;
  for (const std::string storage : kAllStorages) {
    SCOPED_TRACE(storage);
    const auto table = NewTable(UniformTable(storage, 4, 100000));
    const std::vector<int64_t> keys = DenseKeys(100000);
    std::vector<float> out(keys.size() * 4);
    EXPECT_OK(table->Lookup(keys.data(), keys.size(), true, Missing::kInitial, out.data(), &pool));
    const int64_t before = table->MemoryBytes();
    EXPECT_OK(table->Remove(keys.data(), 60000, &pool));
    EXPECT_LE(table->MemoryBytes(), before);
    EXPECT_OK(table->Upsert(keys.data(), out.data(), 60000, &pool));
    EXPECT_LE(table->MemoryBytes(), before);
  }
}

// The widest row that a table takes, and one more: no product overflows.
TEST(RowsThatNoMemoryHoldsAreRefused) {
  if (kSanitized) return;  // they end the process where new would throw
  SerialPool pool;
  for (const std::string storage : kAllStorages) {
    SCOPED_TRACE(storage);
    TableOptions options = UniformTable(storage, int64_t{1} << 46, int64_t{1} << 30);
    options.key_counts.width = 1 << 20;
    const auto table = NewTable(options);
    const std::vector<int64_t> keys = DenseKeys(1 << 16);
    for (int64_t n : {1, 100, 1 << 16}) {
      EXPECT_EQ(CodeOf([&] {
                  return table->Lookup(keys.data(), n, true, Missing::kInitial, nullptr, &pool);
                }),
                Code::kResourceExhausted);
    }
    int64_t rows;
    EXPECT_OK(table->Check({}, true, &pool, &rows));
    EXPECT_EQ(rows, 0);
  }
}

}  // namespace
}  // namespace testing
}  // namespace sparse_emb
