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

// A lookup that inserts reads all rows before it bounds the norms of some in the table.
TEST(ALookupThatBoundsNormsSeesAllOfAnUpdateOrNothing) {
  for (const std::string storage : kAllStorages) {
    SCOPED_TRACE(storage);
    TableOptions options = ZeroTable(storage);
    options.max_norm.limit = 1;
    const auto table = NewTable(options);
    SerialPool serial;
    int64_t token = 0;
    EXPECT_OK(table->Bind("sgd", {}, &serial, &token));
    const std::vector<int64_t> keys = DenseKeys(1000);
    // Every other row is beyond the limit.
    std::vector<float> rows(keys.size() * kDim), grads(keys.size() * kDim);
    for (size_t i = 0; i < keys.size(); ++i) {
      rows[i * kDim] = i % 2 == 0 ? 0 : 10;
      grads[i * kDim + 1] = -0.5f;  // makes element 1 positive
    }
    const int64_t rounds = Repeats(300);
    for (int64_t round = 0; round < rounds && !HasFailure(); ++round) {
      EXPECT_OK(table->Upsert(keys.data(), rows.data(), keys.size(), &serial));
      std::vector<float> out(rows.size());
      RunAtOnce(
          {[&] {
             SerialPool pool;
             EXPECT_OK(
                 table->Lookup(keys.data(), keys.size(), true, Missing::kZeros, out.data(), &pool));
           },
           [&] {
             SerialPool pool;
             EXPECT_OK(table->Update(keys.data(), grads.data(), keys.size(), kSgd, 0, true, &pool));
           }});
      for (size_t i = 0; i < keys.size(); ++i) EXPECT_EQ(out[i * kDim + 1] > 0, out[1] > 0);
    }
  }
}

// One restore's rows are all 1, the other's all 2, of keys that are partly the same.
TEST(ARestoreIsSeenWholeOrNotAtAll) {
  for (const std::string storage : kAllStorages) {
    SCOPED_TRACE(storage);
    const auto table = NewTable(ZeroTable(storage));
    std::atomic<bool> done{false};
    const auto content = [](float value) {
      Content content;
      content.keys = DenseKeys(value == 1 ? 500 : 600);
      for (int64_t& key : content.keys) key += 100 * static_cast<int64_t>(value);
      content.width = kDim;
      content.rows.assign(content.keys.size() * kDim, value);
      return content;
    };
    const auto restore = [&] {
      StdThreadPool pool(2);
      Content one = content(1), two = content(2);
      for (int64_t i = 0; i < Repeats(250); ++i) {
        EXPECT_OK(table->Restore(one.view(), "", &pool));
        EXPECT_OK(table->Restore(two.view(), "", &pool));
      }
      done = true;
    };
    const auto look_up = [&] {
      StdThreadPool pool(2);
      std::vector<int64_t> both = DenseKeys(400);
      for (int64_t& key : both) key += 200;
      std::vector<float> out(both.size() * kDim);
      while (!done) {
        EXPECT_OK(
            table->Lookup(both.data(), both.size(), false, Missing::kZeros, out.data(), &pool));
        EXPECT_EQ(out, std::vector<float>(out.size(), out[0]));
        std::this_thread::yield();
      }
    };
    const auto export_rows = [&] {
      while (!done) {
        const Content got = ExportAll(table.get(), true);
        if (got.size() > 0) ExpectSameContent(got, content(got.rows[0]));
        std::this_thread::yield();
      }
    };
    RunAtOnce({restore, look_up, export_rows});
  }
}

// All shared keys get the same deltas and amounts by the same calls.
TEST(DeltasAndCountsOfManyThreadsAllCount) {
  constexpr int64_t kKeys = 150;
  for (const std::string storage : kAllStorages) {
    SCOPED_TRACE(storage);
    TableOptions options = ZeroTable(storage);
    options.key_counts.width = 2;
    const auto table = NewTable(options);
    const std::vector<int64_t> keys = DenseKeys(kKeys);
    SerialPool serial;
    std::vector<float> first(kKeys * kDim);
    EXPECT_OK(table->Lookup(keys.data(), kKeys, true, Missing::kZeros, first.data(), &serial));
    const int64_t rounds = Repeats(200);
    std::atomic<int> adders{3};
    const auto add = [&](int seed) {
      StdThreadPool pool(2, seed);
      for (int64_t i = 1; i <= rounds; ++i) {
        const std::vector<float> deltas(kKeys * kDim, i % 5);
        EXPECT_OK(table->ScatterAdd(keys.data(), deltas.data(), kKeys, &pool));
        const std::vector<double> amounts(kKeys * 2, i % 3);
        EXPECT_OK(table->Count(keys.data(), amounts.data(), kKeys, i % 2 == 0, &pool));
      }
      --adders;
    };
    const auto get = [&] {
      StdThreadPool pool(2);
      std::vector<double> counts(kKeys * 2);
      while (adders > 0) {
        EXPECT_OK(table->GetCounts(keys.data(), kKeys, counts.data(), &pool));
        EXPECT_EQ(counts, std::vector<double>(kKeys * 2, counts[0]));
        const TableStatistics s = table->Statistics();
        EXPECT_LE(kKeys, s.rows);
        EXPECT_LE(s.rows, s.capacity);
        EXPECT_LE(s.rows, s.probes);
        std::this_thread::yield();
      }
    };
    // Keys from 1000 on come and go; in every part the shared rows are of one moment.
    const auto come_and_go = [&] {
      SerialPool pool;
      std::vector<int64_t> others = DenseKeys(700);
      for (int64_t& key : others) key += 1000;
      const std::vector<float> rows(others.size() * kDim, 3.0f);
      while (adders > 0) {
        EXPECT_OK(table->Upsert(others.data(), rows.data(), others.size(), &pool));
        std::this_thread::yield();
        EXPECT_OK(table->Remove(others.data(), others.size(), &pool));
      }
    };
    const bool stays = storage == "slab" || storage == "index";
    const auto export_parts = [&] {
      while (adders > 0) {
        std::vector<int64_t> seen(kKeys);
        for (int64_t next = 0; next != -1;) {
          Content part;
          next = ExportPart(table.get(), false, next, 40, &part);
          float value = -1;
          for (int64_t i = 0; i < part.size(); ++i) {
            if (part.keys[i] >= 1000) continue;
            ++seen[part.keys[i]];
            if (value < 0) value = part.rows[i * kDim];
            EXPECT_EQ(part.rows[i * kDim], value);
          }
        }
        // Rows of these storages never move.
        if (stays) EXPECT_EQ(seen, std::vector<int64_t>(kKeys, 1));
        std::this_thread::yield();
      }
    };
    RunAtOnce({[&] { add(1); }, [&] { add(2); }, [&] { add(3); }, get, come_and_go, export_parts});

    float sum = 0;
    double count = 0;
    for (int64_t i = 1; i <= rounds; ++i) {
      sum += 3 * (i % 5);
      count += 3 * (i % 3);
    }
    std::vector<float> out(kKeys * kDim);
    EXPECT_OK(table->Lookup(keys.data(), kKeys, false, Missing::kZeros, out.data(), &serial));
    EXPECT_EQ(out, std::vector<float>(kKeys * kDim, sum));
    std::vector<double> counts(kKeys * 2);
    EXPECT_OK(table->GetCounts(keys.data(), kKeys, counts.data(), &serial));
    EXPECT_EQ(counts, std::vector<double>(kKeys * 2, count));
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
