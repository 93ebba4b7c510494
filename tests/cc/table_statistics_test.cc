// What Statistics tells of a table, and what the stores tell it.
#include <algorithm>
#include <string>
#include <vector>

#include "cc/lib/chained_store.h"
#include "cc/lib/index_store.h"
#include "cc/lib/open_addressing_store.h"
#include "cc/lib/slab_store.h"
#include "cc/lib/unordered_map_store.h"
#include "tests/cc/keys.h"
#include "tests/cc/table_model.h"
#include "tests/cc/testing.h"

namespace sparse_emb {
namespace testing {
namespace {

constexpr int64_t kDim = 5;

void Insert(Table* table, const std::vector<int64_t>& keys) {
  SerialPool pool;
  std::vector<float> out(keys.size() * kDim);
  EXPECT_OK(table->Lookup(keys.data(), keys.size(), true, Missing::kInitial, out.data(), &pool));
}

void Remove(Table* table, const std::vector<int64_t>& keys) {
  SerialPool pool;
  EXPECT_OK(table->Remove(keys.data(), keys.size(), &pool));
}

// What holds of every table whose rows have these many floats of counts and state.
void ExpectStatistics(Table* table, int64_t other_floats) {
  const TableStatistics s = table->Statistics();
  EXPECT_EQ(s.rows, table->Size());
  EXPECT_EQ(s.memory_bytes, table->MemoryBytes());
  EXPECT_EQ(s.row_bytes, s.rows * kDim * 4);
  EXPECT_EQ(s.state_bytes, s.rows * other_floats * 4);
  EXPECT_LE(s.row_bytes + s.state_bytes, s.memory_bytes);
  EXPECT_LE(s.rows, s.capacity);
  EXPECT_LE(s.rows, s.probes);
  EXPECT_LE(s.probes, s.rows * s.max_probes);
  EXPECT_LE(s.max_probes, s.probes);
  EXPECT_EQ(s.max_probes == 0, s.rows == 0);
}

TEST(StatisticsAddUp) {
  SerialPool pool;
  for (const std::string storage : kAllStorages) {
    for (int64_t num_counts : {0, 2}) {
      SCOPED_TRACE(storage, ", ", num_counts, " counts");
      TableOptions options = UniformTable(storage, kDim, storage == "index" ? 3000 : -1);
      options.key_counts.width = num_counts;
      const int64_t count_floats = options.key_counts.floats();
      const auto table = NewTable(options);
      ExpectStatistics(table.get(), count_floats);
      const std::vector<int64_t> keys = storage == "index" ? DenseKeys(2000) : HardKeys(700);
      for (size_t size : {1, 10, 100, 1000}) {
        SCOPED_TRACE(size, " keys");
        Insert(table.get(), {keys.begin(), keys.begin() + size});
        ExpectStatistics(table.get(), count_floats);
      }
      int64_t token = 0;
      EXPECT_OK(table->Bind("row_wise_adam", std::vector<float>(kDim + 1), &pool, &token));
      Insert(table.get(), keys);
      ExpectStatistics(table.get(), count_floats + kDim + 1);
      Remove(table.get(), {keys.begin() + 100, keys.end()});
      EXPECT_EQ(table->Size(), 100);
      ExpectStatistics(table.get(), count_floats + kDim + 1);
      EXPECT_OK(table->Bind("sgd", {}, &pool, &token));
      ExpectStatistics(table.get(), count_floats);
      table->Clear();
      ExpectStatistics(table.get(), count_floats);
      EXPECT_LE(table->Statistics().memory_bytes, 64 * 300);
    }
  }
}

// Keys of one home in every storage: how far each is from it is known.
TEST(ProbesOfCollidingKeysAreKnown) {
  struct Case {
    std::string storage;
    int64_t probes, max_probes;
  };
  const Case cases[] = {
      {"open_addressing", 24 * 25 / 2, 24},  // 1 + 2 + ... + 24
      {"chained", 24 * 25 / 2, 24},
      {"slab", 12 + 2 * 12, 2},  // a bucket holds 12
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.storage);
    const auto table = NewTable(UniformTable(c.storage, kDim));
    Insert(table.get(), CollidingKeys(24));
    TableStatistics s = table->Statistics();
    EXPECT_EQ(s.probes, c.probes);
    EXPECT_EQ(s.max_probes, c.max_probes);
    // Others stand alone.
    Insert(table.get(), {0, 1});
    s = table->Statistics();
    EXPECT_EQ(s.rows, 26);
    EXPECT_EQ(s.probes, c.probes + 2);
    EXPECT_EQ(s.max_probes, c.max_probes);
    Remove(table.get(), CollidingKeys(24));
    s = table->Statistics();
    EXPECT_EQ(s.probes, 2);
    EXPECT_EQ(s.max_probes, 1);
  }
}

TEST(AnIndexTableHasRoomForItsInputDimAndFindsKeysAtOnce) {
  for (int64_t input_dim : {1, 63, 64, 65, 1000, 4097}) {
    SCOPED_TRACE("input_dim ", input_dim);
    const auto table = NewTable(UniformTable("index", kDim, input_dim));
    EXPECT_EQ(table->Statistics().capacity, input_dim);
    Insert(table.get(), DenseKeys((input_dim + 1) / 2));
    EXPECT_EQ(table->Statistics().capacity, input_dim);
    EXPECT_EQ(table->Statistics().probes, (input_dim + 1) / 2);
    EXPECT_EQ(table->Statistics().max_probes, 1);
  }
}

// A store's index takes Capacity rows as it is, and grows with the next one.
template <class Store>
void ExpectGrowthAtCapacity(const std::string& storage) {
  SCOPED_TRACE(storage);
  Store store({1, 1 << 20}, 0);
  const bool is_index = storage == "index";
  int64_t grown = 0;
  for (int64_t i = 0; i < 3000; ++i) {
    const int64_t key = is_index ? i : KeyOfHash(static_cast<uint64_t>(i) * 0x9e3779b97f4a7c15);
    const int64_t before = store.Capacity();
    store.Reserve(1);
    EXPECT_EQ(store.Capacity() > before, i == before);
    grown += store.Capacity() > before;
    *store.Insert(key, HashKey(key)) = 1;
    EXPECT_EQ(store.size(), i + 1);
    EXPECT_LE(store.Probes(key, HashKey(key)), i + 1);
    EXPECT_LE(1, store.Probes(key, HashKey(key)));
  }
  EXPECT_EQ(grown > 0, !is_index);
  EXPECT_LE(grown, 15);
}

TEST(AnIndexGrowsWhenItsCapacityIsUsedUp) {
  ExpectGrowthAtCapacity<UnorderedMapStore>("unordered_map");
  ExpectGrowthAtCapacity<OpenAddressingStore>("open_addressing");
  ExpectGrowthAtCapacity<ChainedStore>("chained");
  ExpectGrowthAtCapacity<SlabStore>("slab");
  ExpectGrowthAtCapacity<IndexStore>("index");
}

}  // namespace
}  // namespace testing
}  // namespace sparse_emb
