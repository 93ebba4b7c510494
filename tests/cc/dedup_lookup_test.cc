// The dedup and the lookup in one give what the two give, whatever happens in between.
#include "cc/lib/dedup_lookup.h"

#include <malloc.h>

#include <new>
#include <string>
#include <vector>

#include "cc/lib/key_dedup.h"
#include "tests/cc/keys.h"
#include "tests/cc/memory_limit.h"
#include "tests/cc/table_events.h"
#include "tests/cc/testing.h"

namespace sparse_emb {
namespace testing {
namespace {

std::vector<int64_t> SkewedKeys(int64_t n, int64_t different) {
  Random random(n);
  std::vector<int64_t> keys(n);
  for (int64_t& key : keys) key = random.Below(1 + random.Below(different));
  return keys;
}

// The arguments and what comes of them.
struct Call {
  std::vector<int64_t> keys;
  bool insert = true;
  Missing missing = Missing::kInitial;
  int64_t room = 0;

  std::vector<int64_t> unique = {};
  std::vector<int32_t> inverse = {}, counts = {};
  std::vector<float> rows = {};

  Status Run(Table* table, WorkerPool* pool) {
    const int64_t n = keys.size();
    unique.assign(n, -1);
    inverse.assign(n, -1);
    counts.assign(n, -1);
    std::vector<float> ahead(room * kDim, -9.0f);
    int64_t num_unique = -1;
    const Status status = DedupLookup(
        keys.data(), n, {unique.data(), inverse.data(), counts.data()}, table, insert, missing,
        {ahead.data(), room},
        [&](int64_t size) {
          EXPECT_EQ(num_unique, -1);
          num_unique = size;
          if (size <= room) return ahead.data();
          rows.assign(size * kDim, -9.0f);
          return rows.data();
        },
        pool);
    if (num_unique <= room) rows = ahead;
    rows.resize(num_unique * kDim);
    unique.resize(num_unique);
    counts.resize(num_unique);
    return status;
  }
};

// The two calls, on another table with the same content.
void ExpectTheSameAsTwoCalls(const Call& got, Table* twin) {
  SerialPool pool;
  const int64_t n = got.keys.size();
  std::vector<int64_t> unique(n);
  std::vector<int32_t> inverse(n), counts(n);
  const int64_t num_unique =
      DedupKeys(got.keys.data(), n, unique.data(), inverse.data(), counts.data(), &pool);
  unique.resize(num_unique);
  counts.resize(num_unique);
  std::vector<float> rows(num_unique * kDim);
  EXPECT_OK(twin->Lookup(unique.data(), num_unique, got.insert, got.missing, rows.data(), &pool));
  EXPECT_EQ(got.unique, unique);
  EXPECT_EQ(got.inverse, inverse);
  EXPECT_EQ(got.counts, counts);
  EXPECT_EQ(got.rows, rows);
}

// Fewer and more keys than the ranges that are read at once, and many threads.
TEST(DedupLookupGivesWhatTheTwoGive) {
  constexpr int64_t kKeys = 9000;
  for (const std::string storage : kAllStorages) {
    for (const int64_t n : {0, 1, 3000, 70000}) {
      for (const int threads : {1, 2, 5}) {
        for (const int64_t room : {0, 1, 1500, 100000}) {
          const bool insert = (n + threads + room) % 2 == 0;
          SCOPED_TRACE(storage, ", ", n, " keys, ", threads, " threads, room for ", room);
          const auto table = HalfFullTable(storage, kKeys), twin = HalfFullTable(storage, kKeys);
          StdThreadPool pool(threads);
          Call call{SkewedKeys(n, kKeys), insert, room == 1 ? Missing::kZeros : Missing::kInitial,
                    room};
          EXPECT_OK(call.Run(table.get(), &pool));
          ExpectTheSameAsTwoCalls(call, twin.get());
          UpdateAll(table.get(), call.unique);
          UpdateAll(twin.get(), call.unique);
          ExpectSameRows(ExportRows(table.get(), true), ExportRows(twin.get(), true));
          if (HasFailure()) return;
        }
      }
    }
  }
}

TEST(RowsThatWereReadBeforeAnEventAreReadAgain) {
  constexpr int64_t kKeys = 3000;
  for (const std::string storage : kAllStorages) {
    for (const auto& [name, event] : EventsOf(kKeys)) {
      for (const bool insert : {false, true}) {
        SCOPED_TRACE(storage, ", ", name, ", insert ", insert);
        const auto table = HalfFullTable(storage, kKeys), twin = HalfFullTable(storage, kKeys);
        Call call{SkewedKeys(5000, kKeys), insert, Missing::kZeros, 5000};
        EventPool event_pool(1, 1, [&, &event = event] { event(table.get()); });
        EXPECT_OK(call.Run(table.get(), &event_pool));
        event(twin.get());
        ExpectTheSameAsTwoCalls(call, twin.get());
        UpdateAll(table.get(), call.unique);
        UpdateAll(twin.get(), call.unique);
        ExpectSameRows(ExportRows(table.get(), true), ExportRows(twin.get(), true));
      }
    }
  }
}

// What was read ahead must have been used where nothing has happened, or the test above says
// nothing: the rows are where they were read, although the table's have other values by now.
TEST(RowsThatWereReadAreNotReadAgain) {
  for (const std::string storage : kAllStorages) {
    SCOPED_TRACE(storage);
    const auto table = HalfFullTable(storage, 100);
    SerialPool pool;
    std::vector<float> out = {1, 2, 3, 4, 5, 6, -9, -9, -9};
    const int64_t keys[] = {2, 4, 6};
    LookupStart start;
    start.moment = table->Now();
    start.size = 2;
    EXPECT_OK(table->Lookup(keys, 3, false, Missing::kZeros, start, out.data(), &pool));
    EXPECT_EQ(std::vector<float>(out.begin(), out.begin() + 6),
              std::vector<float>({1, 2, 3, 4, 5, 6}));
    EXPECT_TRUE(out[6] != -9);
  }
}

TEST(AKeyOutOfRangeIsRefusedBeforeAnythingChanges) {
  for (const std::string storage : {"slab", "index"}) {
    for (const int threads : {1, 2, 5}) {
      SCOPED_TRACE(storage, ", ", threads, " threads");
      const auto table = HalfFullTable(storage, 100);
      const Rows before = ExportRows(table.get(), true);
      StdThreadPool pool(threads);
      for (const int64_t bad : {int64_t{-1}, int64_t{100}, INT64_MIN, INT64_MAX}) {
        Call call{SkewedKeys(70000, 100), true, Missing::kInitial, 1000};
        call.keys[50] = bad;
        EXPECT_ERROR(call.Run(table.get(), &pool), Code::kInvalidArgument,
                     "[0, 100), got keys[50] = ");
      }
      ExpectSameRows(ExportRows(table.get(), true), before);
    }
  }
}

// The dedup's scratch takes 4 MB.
TEST(ADedupWithoutMemoryEndsTheLookupToo) {
  OnEveryStorageAlone("ADedupWithoutMemoryEndsTheLookupToo", [](const std::string& storage) {
    const auto table = HalfFullTable(storage, 100);
    mallopt(M_ARENA_MAX, 1);  // other arenas have reserved addresses
    StdThreadPool pool(2);
    Call call{SkewedKeys(1000000, 100), true, Missing::kInitial, 100};
    EXPECT_OK(call.Run(table.get(), &pool));
    const int64_t n = call.keys.size();
    std::vector<float> ahead(100 * kDim);
    bool thrown = false;
    {
      const MemoryLimit limit(2 << 20);  // threads have the stacks of those before
      try {
        DedupLookup(
            call.keys.data(), n, {call.unique.data(), call.inverse.data(), call.counts.data()},
            table.get(), true, Missing::kInitial, {ahead.data(), 100},
            [&](int64_t) { return ahead.data(); }, &pool);
      } catch (const std::bad_alloc&) {
        thrown = true;
      }
    }
    EXPECT_TRUE(thrown);
    EXPECT_OK(call.Run(table.get(), &pool));
  });
}

}  // namespace
}  // namespace testing
}  // namespace sparse_emb
