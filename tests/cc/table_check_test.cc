// Table::Check finds every kind of damage, and names table and key.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "cc/lib/chained_store.h"
#include "cc/lib/index_store.h"
#include "cc/lib/open_addressing_store.h"
#include "cc/lib/sharded_table.h"
#include "cc/lib/slab_store.h"
#include "cc/lib/unordered_map_store.h"
#include "tests/cc/keys.h"
#include "tests/cc/table_model.h"
#include "tests/cc/testing.h"

namespace sparse_emb {

// What it names of a store, a table or its parts can be damaged.
struct StorePeer {
  template <class Store>
  static auto& size(Store* store) {
    return store->size_;
  }
  template <class Store>
  static auto& used(Store* store) {
    return store->used_;
  }
  template <class Store>
  static auto& keys(Store* store) {
    return store->keys_;
  }
  template <class Store>
  static auto& rows(Store* store) {
    return store->rows_;
  }
  template <class Store>
  static auto& row_floats(Store* store) {
    return store->row_floats_;
  }
  static auto& first(ChainedStore* store) { return store->first_; }
  static auto& next(ChainedStore* store) { return store->next_; }
  static auto& values(ChainedStore* store) { return store->values_; }
  static auto& buckets(SlabStore* store) { return store->buckets_; }
  static auto& is_free(SlabStore* store) { return store->is_free_; }
  static auto& first_free(SlabStore* store) { return store->first_free_; }
  static auto& free_rows(SlabStore* store) { return store->free_rows_; }
  static auto& used_rows(SlabStore* store) { return store->used_rows_; }
  static void SetKey(SlabStore* store, uint32_t row, int64_t key) {
    SlabStore::SetKey(store->rows_.Row(row), key);
  }
  template <class Store>
  static auto& stores(ShardedTable<Store>* table) {
    return table->rows_.stores_;
  }
  template <class Store>
  static auto& state_width(ShardedTable<Store>* table) {
    return table->stored_state_width_;
  }
  template <class Store>
  static auto& last_rows(ShardedTable<Store>* table) {
    return table->last_lookup_.rows_;
  }
};

namespace testing {
namespace {

constexpr int64_t kDim = 3;
using Peer = StorePeer;

// A damage, and a part of what Check says of it.
template <class Store>
using Damages = std::vector<std::pair<std::string, std::function<void(Store*)>>>;

// A shard with keys 0 to 59 but 7, 21 and 35, which were removed.
template <class Store>
Store FilledShard() {
  StoreOptions options;
  options.row_floats = kDim;
  options.input_dim = 64 * kShards;
  Store store(options, 0);
  for (int64_t key = 0; key < 60; ++key) {
    store.Reserve(1);
    std::fill_n(store.Insert(key, HashKey(key)), kDim, 1.0f);
  }
  for (int64_t key : {7, 21, 35}) EXPECT_TRUE(store.Remove(key, HashKey(key)));
  return store;
}

template <class Store>
void ExpectFound(const Damages<Store>& damages) {
  for (const auto& [message, damage] : damages) {
    SCOPED_TRACE(message);
    Store store = FilledShard<Store>();
    EXPECT_OK(store.Check());
    damage(&store);
    EXPECT_ERROR(store.Check(), Code::kDataLoss, message);
  }
}

// Of keys_, used_ and the like.
template <class Store>
int64_t SlotOf(Store* store, int64_t key) {
  for (size_t slot = 0; slot < Peer::keys(store).size(); ++slot) {
    if (Peer::keys(store)[slot] == key) return slot;
  }
  return -1;
}

TEST(CheckFindsDamageOfOpenAddressing) {
  using Store = OpenAddressingStore;
  ExpectFound<Store>({
      {"slots are in use, but the size is 58", [](Store* s) { ++Peer::size(s); }},
      {"56 slots are in use, but the size is 57",
       [](Store* s) { Peer::used(s)[SlotOf(s, 9)] = 0; }},
      {"key 9 in slot",
       [](Store* s) {  // 10 is lost, 9 there twice
         Peer::keys(s)[SlotOf(s, 10)] = 9;
       }},
      {"is not found",
       [](Store* s) {  // in a slot that no search from its home reaches
         const int64_t from = SlotOf(s, 9);
         int64_t to = (from + 1) % Peer::used(s).size();
         while (Peer::used(s)[to] ||
                Peer::used(s)[(to + Peer::used(s).size() - 1) % Peer::used(s).size()]) {
           to = (to + 1) % Peer::used(s).size();
         }
         Peer::used(s)[from] = 0;
         Peer::used(s)[to] = 1;
         Peer::keys(s)[to] = 9;
       }},
      {"127 keys", [](Store* s) { Peer::keys(s).pop_back(); }},
      {"bytes of rows of 4 floats", [](Store* s) { ++Peer::row_floats(s); }},
      {"no slot is free",
       [](Store* s) {
         std::fill(Peer::used(s).begin(), Peer::used(s).end(), 1);
         Peer::size(s) = Peer::used(s).size();
       }},
  });
}

TEST(CheckFindsDamageOfChains) {
  using Store = ChainedStore;
  ExpectFound<Store>({
      {"the chain of bucket", [](Store* s) { Peer::next(s)[SlotOf(s, 9)] = 1000; }},
      {"links to row -7", [](Store* s) { Peer::next(s)[SlotOf(s, 9)] = -7; }},
      {"is linked twice: its chain has no end",
       [](Store* s) { Peer::next(s)[SlotOf(s, 9)] = static_cast<int32_t>(SlotOf(s, 9)); }},
      {"is in the chain of another bucket",
       [](Store* s) {
         for (int32_t& first : Peer::first(s)) {
           if (first >= 0 && first != SlotOf(s, 9)) return void(first = SlotOf(s, 9));
         }
       }},
      {"keys are in chains, but the size is 57",
       [](Store* s) {
         for (int32_t& first : Peer::first(s)) {
           if (first >= 0) return void(first = -1);
         }
       }},
      {"key 9 is in the table twice",
       [](Store* s) {  // one more row of it, at the end of its chain
         const int32_t row = static_cast<int32_t>(s->size());
         int32_t last = static_cast<int32_t>(SlotOf(s, 9));
         while (Peer::next(s)[last] >= 0) last = Peer::next(s)[last];
         Peer::keys(s).push_back(9);
         Peer::next(s).push_back(-1);
         Peer::values(s).resize(Peer::values(s).size() + kDim);
         Peer::next(s)[last] = row;
       }},
      {"56 links", [](Store* s) { Peer::next(s).pop_back(); }},
      {"floats in rows of 3", [](Store* s) { Peer::values(s).pop_back(); }},
      {"0 buckets", [](Store* s) { Peer::first(s).clear(); }},
  });
}

TEST(CheckFindsDamageOfAnUnorderedMap) {
  using Store = UnorderedMapStore;
  ExpectFound<Store>({{"key 9 has no row", [](Store* s) { Peer::rows(s)[9].reset(); }}});
  Store store = FilledShard<Store>();
  auto& rows = Peer::rows(&store);
  float* const own = rows[9].release();
  rows[9].reset(rows[10].get());
  EXPECT_ERROR(store.Check(), Code::kDataLoss, " share a row");
  EXPECT_ERROR(store.Check(), Code::kDataLoss, "key");
  rows[9].release();
  rows[9].reset(own);
  EXPECT_OK(store.Check());
}

TEST(CheckFindsDamageOfAnIndex) {
  using Store = IndexStore;
  ExpectFound<Store>({
      {"56 of the keys from 0 on are in use, but the size is 57",
       [](Store* s) { Peer::used(s)[9] = 0; }},
      {"57 of the keys from 0 on are in use, but the size is 64",
       [](Store* s) { Peer::size(s) = 64; }},
      {"63 flags", [](Store* s) { Peer::used(s).pop_back(); }},
      {"0 bytes of rows", [](Store* s) { Peer::rows(s) = ArenaBuffer(); }},
      {"bytes of rows of 4 floats", [](Store* s) { ++Peer::row_floats(s); }},
  });
}

// Calls fn(bucket, slot) for the slots of the index that are in use until it returns true.
template <class Fn>
void AnySlot(SlabStore* store, const Fn& fn) {
  for (auto& bucket : Peer::buckets(store)) {
    for (int slot = 0; slot < 12; ++slot) {
      if (bucket.tags[slot] != 0 && fn(bucket, slot)) return;
    }
  }
  EXPECT_TRUE(false);
}

TEST(CheckFindsDamageOfASlab) {
  using Store = SlabStore;
  ExpectFound<Store>({
      {"57 keys are in the index, but the size is 58", [](Store* s) { ++Peer::size(s); }},
      {"56 keys are in the index, but the size is 57",
       [](Store* s) {
         AnySlot(s, [](auto& bucket, int slot) { return (bucket.tags[slot] = 0, true); });
       }},
      {"has the tag of another",
       [](Store* s) {
         AnySlot(s, [](auto& bucket, int slot) { return (bucket.tags[slot] ^= 0xff) != 0; });
       }},
      {"is in the index twice",
       [](Store* s) {  // two slots, one row
         AnySlot(s, [](auto& bucket, int slot) {
           const uint32_t empty = bucket.Match(0);
           if (empty == 0) return false;
           bucket.tags[__builtin_ctz(empty)] = bucket.tags[slot];
           bucket.rows[__builtin_ctz(empty)] = bucket.rows[slot];
           return true;
         });
       }},
      {"key ",  // the row of 10 has the key 9: the tag of another, or found elsewhere
       [](Store* s) { Peer::SetKey(s, 10, 9); }},
      {"is not found",
       [](Store* s) {  // in a bucket where no search for it comes by
         AnySlot(s, [&](auto& bucket, int slot) {
           for (auto& other : Peer::buckets(s)) {
             if (&other == &bucket || other.Match(0) == 0 || bucket.spilled != 0) continue;
             const int to = __builtin_ctz(other.Match(0));
             other.tags[to] = std::exchange(bucket.tags[slot], 0);
             other.rows[to] = bucket.rows[slot];
             return true;
           }
           return false;
         });
       }},
      {"which is not in use",
       [](Store* s) {
         AnySlot(s, [](auto& bucket, int slot) { return (bucket.rows[slot] = 1000, true); });
       }},
      {"which is not in use",
       [](Store* s) {
         AnySlot(s, [](auto& bucket, int slot) { return (bucket.rows[slot] = 7, true); });
       }},
      {"keys passed bucket", [](Store* s) { ++(*Peer::buckets(s).begin()).spilled; }},
      {"3 rows are free, but 4 have the flag", [](Store* s) { Peer::is_free(s)[9] = true; }},
      {"3 rows are free, but 3 have the flag and 0 are in the list",
       [](Store* s) { Peer::first_free(s) = -1; }},
      {"3 rows are free, but 3 have the flag and more are in the list",
       [](Store* s) { Peer::SetKey(s, 7, Peer::first_free(s)); }},
      {"the list of free rows has row 9, which is not free",
       [](Store* s) { Peer::first_free(s) = 9; }},
      {"the list of free rows has row 5000", [](Store* s) { Peer::first_free(s) = 5000; }},
      {"4 rows are free, but 3 have the flag", [](Store* s) { ++Peer::free_rows(s); }},
      {"58 rows are in use, but the size is 57", [](Store* s) { ++Peer::used_rows(s); }},
      {"rows were handed out of", [](Store* s) { Peer::used_rows(s) = 100000; }},
  });
}

// What only the table can see.

TableOptions CountingTable(const std::string& storage) {
  TableOptions options = UniformTable(storage, kDim, storage == "index" ? 6400 : -1);
  options.key_counts.width = 1;
  options.max_rows = storage == "index" ? 6400 : 200;
  return options;
}

const RuleCall kAdagrad{"row_wise_adagrad", {1.0f, 1e-8f, 0.0f}, 1};

// A table of keys 0 to 199, which were updated and counted once, and looked up since.
template <class Store>
class Damaged {
 public:
  explicit Damaged(const std::string& storage) : table_(CountingTable(storage)) {
    const std::vector<int64_t> keys = DenseKeys(200);
    const std::vector<float> grads(200 * kDim, 1.0f);
    std::vector<float> out(200 * kDim);
    const std::vector<double> amounts(200, 1.0);
    int64_t token;
    EXPECT_OK(table_.Bind("row_wise_adagrad", {0.5f}, &pool_, &token, nullptr));
    EXPECT_OK(table_.Update(keys.data(), grads.data(), 200, kAdagrad, 0, true, &pool_));
    EXPECT_OK(table_.Count(keys.data(), amounts.data(), 200, true, &pool_));
    EXPECT_OK(table_.Lookup(keys.data(), 200, true, Missing::kInitial, out.data(), &pool_));
    ExpectWhole();
  }

  ShardedTable<Store>* operator->() { return &table_; }
  ShardedTable<Store>* get() { return &table_; }

  float* Row(int64_t key) {
    for (const Store& store : Peer::stores(&table_)) {
      float* found = nullptr;
      store.ForEachFrom(0, kNoLimit, [&](int64_t k, float* row) {
        if (k == key) found = row;
      });
      if (found != nullptr) return found;
    }
    EXPECT_TRUE(false);
    return nullptr;
  }

  Store* StoreOf(int64_t key) {
    return &Peer::stores(
        &table_)[typename Store::Router({kDim, table_.options().input_dim})(key, HashKey(key))];
  }

  Status Check(Share share = {}, bool finite = true) {
    int64_t rows;
    return table_.Check(share, finite, &pool_, &rows);
  }
  void ExpectWhole() {
    int64_t rows = -1;
    EXPECT_OK(table_.Check({}, true, &pool_, &rows));
    EXPECT_EQ(rows, table_.Size());
  }
  void Expect(const std::string& message) {
    EXPECT_ERROR(Check(), Code::kDataLoss, "table 'item': " + message);
  }

 private:
  SerialPool pool_;
  ShardedTable<Store> table_;
};

template <class Store>
void ExpectTheTableToFind(const std::string& storage) {
  SCOPED_TRACE(storage);
  SerialPool pool;
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  {
    Damaged<Store> table(storage);
    table.Row(42)[1] = kNan;
    table.Expect("embedding[1] of key 42 is nan");
    EXPECT_OK(table.Check({}, /*finite=*/false));
  }
  {
    Damaged<Store> table(storage);
    table.Row(42)[kDim + 4] = -INFINITY;  // behind one count and its step
    table.Expect("state[0] of key 42 is -inf");
    EXPECT_OK(table.Check({}, /*finite=*/false));
  }
  {
    Damaged<Store> table(storage);
    const int64_t step = 2;
    std::memcpy(table.Row(42) + kDim, &step, sizeof(step));
    table.Expect("key 42 was counted in step 2 of 1");
  }
  {
    Damaged<Store> table(storage);
    const double count = NAN;
    std::memcpy(table.Row(42) + kDim + 2, &count, sizeof(count));
    table.Expect("count 0 of key 42 is nan");
  }
  {
    Damaged<Store> table(storage);
    Peer::last_rows(table.get())[42] = table.Row(43);
    table.Expect("key 42 is kept for the next update with a row that is not its own");
  }
  {
    Damaged<Store> table(storage);
    Peer::state_width(table.get()) = 0;
    table.Expect("rows have room for 8 floats and need 7");
    Peer::state_width(table.get()) = -1;
    table.Expect("rows have -1 floats of state, rule row_wise_adagrad needs 1");
  }
  {
    Damaged<Store> table(storage);
    int64_t other = 0;
    while (Share{0, 3}.Has(other)) ++other;
    const std::string message = Join("is on server 0, not on its own, ");
    EXPECT_ERROR(table.Check({0, 3}), Code::kDataLoss, message);
    const std::vector<int64_t> keys = DenseKeys(200);
    for (int64_t key : keys) {
      if (!Share{0, 3}.Has(key)) EXPECT_OK(table->Remove(&key, 1, &pool));
    }
    EXPECT_OK(table.Check({0, 3}));
  }
  if (storage == "index") return;  // an array has a key in one place alone
  {
    Damaged<Store> table(storage);
    const int64_t key = 1000;
    Store* wrong = &Peer::stores(table.get())[0];
    if (table.StoreOf(key) == wrong) ++wrong;
    wrong->Reserve(1);
    std::fill_n(wrong->Insert(key, HashKey(key)), kDim + 5, 0.0f);
    table.Expect("key 1000 is in shard ");
  }
  {
    Damaged<Store> table(storage);
    const int64_t key = 1000;
    table.StoreOf(key)->Reserve(1);
    std::fill_n(table.StoreOf(key)->Insert(key, HashKey(key)), kDim + 5, 0.0f);
    table.Expect("201 rows are more than max_rows = 200");
  }
}

TEST(CheckOfATableFindsWhatNoStoreSees) {
  ExpectTheTableToFind<UnorderedMapStore>("unordered_map");
  ExpectTheTableToFind<OpenAddressingStore>("open_addressing");
  ExpectTheTableToFind<ChainedStore>("chained");
  ExpectTheTableToFind<SlabStore>("slab");
  ExpectTheTableToFind<IndexStore>("index");
}

TEST(CheckOfAKeyOutOfRange) {
  TableOptions options = UniformTable("slab", kDim, 10);
  ShardedTable<SlabStore> table(options);
  auto& store = Peer::stores(&table)[HashKey(10) >> (64 - kShardBits)];
  store.Reserve(1);
  std::fill_n(store.Insert(10, HashKey(10)), kDim, 0.0f);
  SerialPool pool;
  int64_t rows;
  EXPECT_ERROR(table.Check({}, true, &pool, &rows), Code::kDataLoss,
               "table 'item': key 10 is outside [0, 10)");
}

TEST(CheckOfATableSeesTheDamageOfAStore) {
  Damaged<SlabStore> table("slab");
  ++Peer::size(table.StoreOf(42));
  table.Expect("");
  EXPECT_ERROR(table.Check(), Code::kDataLoss, "keys are in the index, but the size is");
}

TEST(AnEmptyTableIsWhole) {
  SerialPool pool;
  for (const std::string storage : kAllStorages) {
    SCOPED_TRACE(storage);
    const auto table = NewTable(UniformTable(storage, kDim, 100));
    int64_t rows = -1;
    EXPECT_OK(table->Check({}, true, &pool, &rows));
    EXPECT_EQ(rows, 0);
  }
}

// By any number of threads, and the first shard's damage is named.
TEST(CheckSaysTheSameWithFourThreads) {
  Damaged<SlabStore> table("slab");
  StdThreadPool threads(4);
  int64_t rows;
  EXPECT_OK(table->Check({}, true, &threads, &rows));
  EXPECT_EQ(rows, 200);
  for (int64_t key : DenseKeys(200)) table.Row(key)[0] = NAN;
  EXPECT_EQ(table->Check({}, true, &threads, &rows).message, table.Check().message);
}

}  // namespace
}  // namespace testing
}  // namespace sparse_emb
