// One table under several threads at once: nobody loses an update or sees half of one.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "tests/cc/keys.h"
#include "tests/cc/table_model.h"
#include "tests/cc/testing.h"

namespace sparse_emb {
namespace testing {
namespace {

constexpr int64_t kDim = 4;
const RuleCall kSgd{"sgd", {1.0f, 0.0f}, 1};

TableOptions ZeroTable(const std::string& storage) {
  TableOptions options = UniformTable(storage, kDim, 100000);
  EXPECT_OK(InitialRow::Make("constant", 0.0f, 0.0f, 0, &options.initial_row));
  return options;
}

void RunAtOnce(const std::vector<std::function<void()>>& work) {
  std::vector<std::thread> threads;
  for (const auto& fn : work) threads.emplace_back(fn);
  for (std::thread& thread : threads) thread.join();
}

// Subtracts whole numbers, so that the sums are exact in any order; all elements of a row and all
// rows of one call get the same.
void Subtract(Table* table, const std::vector<int64_t>& keys, float amount, WorkerPool* pool) {
  const std::vector<float> grads(keys.size() * kDim, amount);
  while (!HasFailure()) {
    const Status status =
        table->Update(keys.data(), grads.data(), keys.size(), kSgd, 0, false, pool);
    // Another thread binds other rules for a while.
    if (status.ok()) return;
    EXPECT_ERROR(status, Code::kFailedPrecondition, "is bound to rule");
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

TEST(ReadersThatNeverPauseDoNotKeepAnUpdateOut) {
  const auto table = NewTable(ZeroTable("slab"));
  SerialPool serial;
  int64_t token = 0;
  EXPECT_OK(table->Bind("sgd", {}, &serial, &token));
  const std::vector<int64_t> keys = DenseKeys(4096);
  std::atomic<bool> done{false};
  const auto read = [&] {
    SerialPool pool;
    std::vector<float> out(keys.size() * kDim);
    while (!done) {
      EXPECT_OK(table->Lookup(keys.data(), keys.size(), false, Missing::kZeros, out.data(), &pool));
    }
  };
  const auto update = [&] {
    SerialPool pool;
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < 100; ++i) Subtract(table.get(), keys, 1, &pool);
    done = true;
    // An update takes under a millisecond; one that is kept out took seconds.
    EXPECT_LE(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), 60);
  };
  RunAtOnce({read, read, read, update});
}

// A lookup that inserts reads the rows that are there before it inserts the others: an update of
// both in between must not be seen on the one half only.
TEST(ALookupThatInsertsSeesAllOfAnUpdateOrNothing) {
  for (const std::string storage : kAllStorages) {
    SCOPED_TRACE(storage);
    const int64_t rounds = Repeats(2000);
    for (int64_t round = 0; round < rounds; ++round) {
      const auto table = NewTable(ZeroTable(storage));
      SerialPool serial;
      int64_t token = 0;
      EXPECT_OK(table->Bind("sgd", {}, &serial, &token));
      const std::vector<int64_t> keys = DenseKeys(64);
      std::vector<float> out(keys.size() * kDim);
      EXPECT_OK(table->Lookup(keys.data(), 32, true, Missing::kZeros, out.data(), &serial));
      RunAtOnce({[&] {
                   SerialPool pool;
                   EXPECT_OK(table->Lookup(keys.data(), keys.size(), true, Missing::kZeros,
                                           out.data(), &pool));
                 },
                 [&] {
                   SerialPool pool;
                   Subtract(table.get(), keys, 1, &pool);
                 }});
      for (const float value : out) EXPECT_EQ(value, out[0]);
    }
  }
}

TEST(UpdatesOfManyThreadsAllCount) {
  for (const std::string storage : kAllStorages) {
    SCOPED_TRACE(storage);
    const auto table = NewTable(ZeroTable(storage));
    int64_t token = 0;
    SerialPool serial;
    EXPECT_OK(table->Bind("sgd", {}, &serial, &token));

    const int64_t rounds = Repeats(100);
    std::vector<int64_t> shared = DenseKeys(200);
    std::atomic<int> updaters{3};
    const auto update = [&](int seed) {
      StdThreadPool pool(2, seed);
      for (int64_t i = 1; i <= rounds; ++i) Subtract(table.get(), shared, i % 7, &pool);
      --updaters;
    };
    // Keys from 1000 on are looked up and inserted; they stay zero.
    const auto look_up = [&] {
      SerialPool pool;
      Random random(8);
      std::vector<float> out(100 * kDim);
      while (updaters > 0) {
        std::vector<int64_t> keys;
        for (int i = 0; i < 100; ++i) keys.push_back(1000 + random.Below(20000));
        EXPECT_OK(table->Lookup(keys.data(), 100, true, Missing::kInitial, out.data(), &pool));
        EXPECT_EQ(out, std::vector<float>(100 * kDim));
        // All shared rows were updated by the same calls.
        EXPECT_OK(table->Lookup(shared.data(), 100, false, Missing::kZeros, out.data(), &pool));
        EXPECT_EQ(out, std::vector<float>(100 * kDim, out[0]));
      }
    };
    // Keys from 50000 on come and go.
    const auto remove = [&] {
      SerialPool pool;
      const std::vector<float> rows(500 * kDim, 3.0f);
      for (int64_t first = 50000; updaters > 0; first = first == 50000 ? 60000 : 50000) {
        std::vector<int64_t> keys = DenseKeys(500);
        for (int64_t& key : keys) key += first;
        EXPECT_OK(table->Upsert(keys.data(), rows.data(), 500, &pool));
        EXPECT_OK(table->Remove(keys.data(), 500, &pool));
        bool found[500];
        EXPECT_OK(table->Contains(keys.data(), 500, found, &pool));
        EXPECT_EQ(std::count(found, found + 500, true), 0);
      }
    };
    const auto bind = [&] {
      SerialPool pool;
      int64_t token = 0;
      while (updaters > 0) {
        EXPECT_OK(table->Bind("row_wise_adagrad", {0.5f}, &pool, &token));
        std::this_thread::yield();
        EXPECT_OK(table->Bind("sgd", {}, &pool, &token));
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      }
    };
    const auto export_rows = [&] {
      while (updaters > 0) {
        const Rows rows = ExportRows(table.get(), false);
        EXPECT_LE(0, table->MemoryBytes());
        const auto first = rows.find(0);
        for (const auto& [key, row] : rows) {
          if (key < 1000) EXPECT_EQ(row, first->second);
          if (key >= 1000) EXPECT_EQ(row, std::vector<float>(kDim, key < 50000 ? 0.0f : 3.0f));
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      }
    };
    RunAtOnce({[&] { update(1); }, [&] { update(2); }, [&] { update(3); }, look_up, remove, bind,
               export_rows});

    float sum = 0;
    for (int64_t i = 1; i <= rounds; ++i) sum += 3 * (i % 7);
    std::vector<float> out(200 * kDim);
    EXPECT_OK(table->Lookup(shared.data(), 200, false, Missing::kZeros, out.data(), &serial));
    EXPECT_EQ(out, std::vector<float>(200 * kDim, -sum));
  }
}

// The threads insert the same keys in different orders; each key gets one row, its own.
TEST(ThreadsThatInsertTheSameKeysAgree) {
  for (const std::string storage : kAllStorages) {
    SCOPED_TRACE(storage);
    const int64_t count = Repeats(50000);
    const TableOptions options = UniformTable(storage, kDim, count);
    const auto table = NewTable(options);
    const TableModel model(options);
    const auto insert = [&](int seed) {
      StdThreadPool pool(2, seed);
      Random random(seed);
      std::vector<int64_t> keys = DenseKeys(count);
      for (int64_t i = count; i > 1; --i) std::swap(keys[i - 1], keys[random.Below(i)]);
      std::vector<float> out(500 * kDim);
      for (int64_t begin = 0; begin < count; begin += 500) {
        const int64_t n = std::min<int64_t>(500, count - begin);
        EXPECT_OK(table->Lookup(&keys[begin], n, true, Missing::kInitial, out.data(), &pool));
        for (int64_t i = 0; i < n; ++i) {
          EXPECT_TRUE(std::equal(&out[i * kDim], &out[i * kDim] + kDim,
                                 model.Initial(keys[begin + i]).begin()));
        }
      }
    };
    RunAtOnce({[&] { insert(1); }, [&] { insert(2); }, [&] { insert(3); }, [&] { insert(4); }});
    const Rows rows = ExportRows(table.get(), true);
    EXPECT_EQ(static_cast<int64_t>(rows.size()), count);
    for (const auto& [key, row] : rows) EXPECT_EQ(row, model.Initial(key));
  }
}

}  // namespace
}  // namespace testing
}  // namespace sparse_emb
