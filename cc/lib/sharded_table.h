// A thread-safe Table of kShards stores (store.h).
//
// One lock a table, taken once a batch: methods that only read rows share it, the others have it
// alone. All queue for it at a gate: glibc's shared_mutex lets new readers pass a waiting writer,
// and two threads that read without a pause would keep it out for good. Inside, threads need no
// locks: searches and row arithmetic are split by position in the batch (keys differ there),
// inserts and removals by shard.
#ifndef TF_SPARSE_EMB_CC_LIB_SHARDED_TABLE_H_
#define TF_SPARSE_EMB_CC_LIB_SHARDED_TABLE_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <new>
#include <numeric>
#include <shared_mutex>
#include <utility>
#include <vector>

#include "cc/lib/key_dedup.h"
#include "cc/lib/store.h"
#include "cc/lib/table.h"
#include "cc/lib/vector_ops.h"

namespace sparse_emb {

// Turns a thread's std::bad_alloc into an error of the whole operation.
class MemoryGuard {
 public:
  explicit MemoryGuard(const std::string& table_name) : table_name_(table_name) {}

  template <class Fn>
  void Run(const Fn& fn) {
    try {
      fn();
    } catch (const std::bad_alloc&) {
      failed_ = true;
    }
  }

  Status status() const {
    if (!failed_) return {};
    return Error(Code::kResourceExhausted, "out of memory in table '", table_name_, "'");
  }

 private:
  const std::string& table_name_;
  std::atomic<bool> failed_{false};
};

template <class Store>
class ShardedTable final : public Table {
 public:
  explicit ShardedTable(TableOptions table_options)
      : Table(std::move(table_options)),
        store_options_{options().dim, options().input_dim},
        shard_of_(store_options_) {
    stores_.reserve(kShards);
    for (int shard = 0; shard < kShards; ++shard) stores_.emplace_back(store_options_, shard);
  }

  Status Lookup(const int64_t* keys, int64_t n, bool insert, Missing missing, float* out,
                WorkerPool* pool) override {
    SPARSE_EMB_RETURN_IF_ERROR(CheckKeys(keys, n));
    if (!insert) {
      const std::shared_lock lock = LockShared();
      Read(keys, n, missing, out, nullptr, pool);
      return {};
    }
    std::vector<uint8_t> absent(n);
    int64_t absent_count, changes;
    {
      const std::shared_lock lock = LockShared();
      absent_count = Read(keys, n, missing, out, absent.data(), pool);
      changes = changes_;
    }
    if (absent_count == 0) return {};

    std::vector<int64_t> positions, absent_keys;
    positions.reserve(absent_count);
    absent_keys.reserve(absent_count);
    for (int64_t i = 0; i < n; ++i) {
      if (!absent[i]) continue;
      positions.push_back(i);
      absent_keys.push_back(keys[i]);
    }
    const UniqueKeys unique(absent_keys.data(), absent_count, pool);
    std::vector<float*> rows(unique.size);
    const std::unique_lock lock = LockAlone();
    SPARSE_EMB_RETURN_IF_ERROR(FindOrInsert(unique.keys.data(), unique.size, rows.data(), pool));
    if (changes_ != changes) {
      // What was read before is no longer of one moment with the rest.
      Read(keys, n, missing, out, nullptr, pool);
      return {};
    }
    const int64_t dim = options().dim;
    pool->ParallelFor(positions.size(), SearchCost(), [&](int64_t begin, int64_t end) {
      for (int64_t j = begin; j < end; ++j) {
        Copy(rows[unique.inverse[j]], out + positions[j] * dim, dim);
      }
    });
    return {};
  }

  Status Update(const int64_t* keys, const float* grads, int64_t n, const RuleCall& rule,
                int64_t token, bool keys_differ, WorkerPool* pool) override {
    SPARSE_EMB_RETURN_IF_ERROR(CheckRule(rule));
    SPARSE_EMB_RETURN_IF_ERROR(CheckKeys(keys, n));
    if (!keys_differ) SPARSE_EMB_RETURN_IF_ERROR(CheckKeysDiffer(keys, n, pool));
    std::vector<float*> rows(n);
    const std::unique_lock lock = LockAlone();
    SPARSE_EMB_RETURN_IF_ERROR(CheckBinding(binding_, rule, token));
    SPARSE_EMB_RETURN_IF_ERROR(FindOrInsert(keys, n, rows.data(), pool));
    ++changes_;
    ApplyRule(rule, rows.data(), grads, n, options().dim, pool);
    return {};
  }

  Status Upsert(const int64_t* keys, const float* values, int64_t n, WorkerPool* pool) override {
    SPARSE_EMB_RETURN_IF_ERROR(CheckKeys(keys, n));
    const int64_t dim = options().dim;
    const UniqueKeys unique(keys, n, pool);
    std::vector<int64_t> last(unique.size);
    for (int64_t i = 0; i < n; ++i) last[unique.inverse[i]] = i;
    std::vector<float*> rows(unique.size);
    const std::unique_lock lock = LockAlone();
    SPARSE_EMB_RETURN_IF_ERROR(FindOrInsert(unique.keys.data(), unique.size, rows.data(), pool));
    ++changes_;
    pool->ParallelFor(unique.size, SearchCost(), [&](int64_t begin, int64_t end) {
      for (int64_t u = begin; u < end; ++u) Copy(values + last[u] * dim, rows[u], dim);
    });
    return {};
  }

  Status Contains(const int64_t* keys, int64_t n, bool* out, WorkerPool* pool) override {
    SPARSE_EMB_RETURN_IF_ERROR(CheckKeys(keys, n));
    const std::shared_lock lock = LockShared();
    pool->ParallelFor(n, SearchCost(), [&](int64_t begin, int64_t end) {
      Search(keys, begin, end, [&](int64_t i, const float* row) { out[i] = row != nullptr; });
    });
    return {};
  }

  Status Remove(const int64_t* keys, int64_t n, WorkerPool* pool) override {
    SPARSE_EMB_RETURN_IF_ERROR(CheckKeys(keys, n));
    const std::unique_lock lock = LockAlone();
    ++changes_;
    ForEachShard(keys, n, pool, [&](Store* store, const int64_t* first, const int64_t* last) {
      for (const int64_t* i = first; i < last; ++i) store->Remove(keys[*i], HashKey(keys[*i]));
    });
    return {};
  }

  void Clear() override {
    const std::unique_lock lock = LockAlone();
    ++changes_;
    for (Store& store : stores_) store.Clear();
  }

  int64_t Size() override {
    const std::shared_lock lock = LockShared();
    return CountRows();
  }

  int64_t MemoryBytes() override {
    const std::shared_lock lock = LockShared();
    int64_t bytes = sizeof(*this);
    for (const Store& store : stores_) bytes += store.MemoryBytes();
    return bytes;
  }

  void Export(bool with_state,
              const std::function<ExportBuffers(int64_t n, int64_t width)>& allocate) override {
    const std::shared_lock lock = LockShared();
    const int64_t width = options().dim + (with_state ? binding_.initial_state.size() : 0);
    auto [keys, rows] = allocate(CountRows(), width);
    if (keys == nullptr) return;
    for (const Store& store : stores_) {
      store.ForEach([&, &keys = keys, &rows = rows](int64_t key, const float* row) {
        *keys++ = key;
        rows = std::copy(row, row + width, rows);
      });
    }
  }

  Status Bind(const std::string& rule, std::vector<float> initial_state, WorkerPool* pool,
              int64_t* token) override {
    RuleInfo info;
    SPARSE_EMB_RETURN_IF_ERROR(FindRule(rule, &info));
    const int64_t dim = options().dim;
    const int64_t state_width = static_cast<int64_t>(initial_state.size());
    if (state_width != info.state_width(dim)) {
      return Error(Code::kInvalidArgument, "initial_state of rule ", rule, " must have ",
                   info.state_width(dim), " values for rows of width ", dim, ", got ", state_width);
    }
    const std::unique_lock lock = LockAlone();
    const bool resize = state_width != stored_state_width_;
    // Until all rows have the new width the table has no optimizer: if memory runs out midway, no
    // embedding is lost, but the state is.
    binding_ = {};
    stored_state_width_ = -1;
    MemoryGuard memory(options().name);
    pool->ParallelFor(kShards, 1 << 20, [&](int64_t begin, int64_t end) {
      for (int64_t shard = begin; shard < end; ++shard) {
        memory.Run([&] {
          if (resize) stores_[shard].Resize(dim + state_width, dim);
          stores_[shard].ForEach([&](int64_t, float* row) {
            std::copy(initial_state.begin(), initial_state.end(), row + dim);
          });
        });
      }
    });
    SPARSE_EMB_RETURN_IF_ERROR(memory.status());
    stored_state_width_ = state_width;
    binding_ = {rule, std::move(initial_state), ++last_token_};
    *token = binding_.token;
    return {};
  }

 private:
  struct UniqueKeys {
    std::vector<int64_t> keys;
    std::vector<int32_t> inverse;
    int64_t size;

    UniqueKeys(const int64_t* all, int64_t n, WorkerPool* pool) : keys(n), inverse(n) {
      std::vector<int32_t> counts(n);
      size = DedupKeys(all, n, keys.data(), inverse.data(), counts.data(), pool);
    }
  };

  std::shared_lock<std::shared_mutex> LockShared() const {
    const std::lock_guard queue(gate_);
    return std::shared_lock(mutex_);
  }
  std::unique_lock<std::shared_mutex> LockAlone() {
    const std::lock_guard queue(gate_);
    return std::unique_lock(mutex_);
  }

  // Rough nanoseconds for one key.
  int64_t SearchCost() const { return 30 + options().dim / 2; }

  // Calls fn(i, row of keys[i] or null) for i in [begin, end) in order. Searches are pipelined:
  // while one key's row is read, the rows of the next keys and the index lines of those after them
  // are on their way, so that the cache misses overlap.
  template <class Fn>
  SPARSE_EMB_INLINE void Search(const int64_t* keys, int64_t begin, int64_t end,
                                const Fn& fn) const {
    constexpr int64_t kRowAhead = 12;
    constexpr int64_t kIndexAhead = 32;
    constexpr int64_t kRing = 64;
    uint64_t hashes[kRing];
    const Store* stores[kRing];
    for (int64_t i = begin - kIndexAhead; i < end; ++i) {
      if (const int64_t j = i + kIndexAhead; j < end) {
        const uint64_t hash = HashKey(keys[j]);
        const Store* store = &stores_[shard_of_(keys[j], hash)];
        hashes[j % kRing] = hash;
        stores[j % kRing] = store;
        store->PrefetchIndex(keys[j], hash);
      }
      if (const int64_t j = i + kRowAhead; j >= begin && j < end) {
        stores[j % kRing]->PrefetchRow(keys[j], hashes[j % kRing]);
      }
      if (i >= begin) fn(i, stores[i % kRing]->Find(keys[i], hashes[i % kRing]));
    }
  }

  // out[i] = the row of keys[i]. Where it is absent: with `absent`, absent[i] = 1 and out[i] is
  // left alone; without, what `missing` says. Returns how many were marked. Needs the table shared.
  int64_t Read(const int64_t* keys, int64_t n, Missing missing, float* out, uint8_t* absent,
               WorkerPool* pool) const {
    std::atomic<int64_t> marked{0};
    pool->ParallelFor(n, SearchCost(), [&](int64_t begin, int64_t end) {
      int64_t marked_here = 0;
      RunOnBestIsa(options().dim, [&](auto dim) SPARSE_EMB_INLINE_LAMBDA {
        Search(keys, begin, end, [&](int64_t i, const float* row) SPARSE_EMB_INLINE_LAMBDA {
          if (row != nullptr) {
            Copy(row, out + i * dim, dim);
          } else if (absent != nullptr) {
            absent[i] = 1;
            ++marked_here;
          } else if (missing == Missing::kInitial) {
            options().initial_row.Fill(keys[i], out + i * dim, dim);
          } else {
            std::fill(out + i * dim, out + (i + 1) * dim, 0.0f);
          }
        });
      });
      marked += marked_here;
    });
    return marked;
  }

  // Calls fn(store, first, last) for every shard that keys touch, at once for different shards;
  // [first, last) are the positions of its keys, ascending.
  template <class Fn>
  void ForEachShard(const int64_t* keys, int64_t n, WorkerPool* pool, const Fn& fn) {
    std::vector<uint8_t> shards(n);
    std::array<int64_t, kShards + 1> begin = {};
    for (int64_t i = 0; i < n; ++i) {
      shards[i] = static_cast<uint8_t>(shard_of_(keys[i], HashKey(keys[i])));
      ++begin[shards[i] + 1];
    }
    std::partial_sum(begin.begin(), begin.end(), begin.begin());
    std::vector<int64_t> positions(n);
    std::array<int64_t, kShards + 1> next = begin;
    for (int64_t i = 0; i < n; ++i) positions[next[shards[i]]++] = i;
    pool->ParallelFor(kShards, (n / kShards + 1) * 100, [&](int64_t first, int64_t last) {
      for (int64_t shard = first; shard < last; ++shard) {
        if (begin[shard] == begin[shard + 1]) continue;
        fn(&stores_[shard], positions.data() + begin[shard], positions.data() + begin[shard + 1]);
      }
    });
  }

  // rows[i] = the row of keys[i], which differ, inserted with its initial values where it is
  // missing. Needs the table alone.
  Status FindOrInsert(const int64_t* keys, int64_t n, float** rows, WorkerPool* pool) {
    FindRows(keys, n, rows, pool);
    std::vector<int64_t> absent;
    for (int64_t i = 0; i < n; ++i) {
      if (rows[i] == nullptr) absent.push_back(keys[i]);
    }
    if (absent.empty()) return {};
    SPARSE_EMB_RETURN_IF_ERROR(Insert(absent.data(), absent.size(), pool));
    FindRows(keys, n, rows, pool);  // again, because making room may have moved rows
    return {};
  }

  void FindRows(const int64_t* keys, int64_t n, float** rows, WorkerPool* pool) const {
    pool->ParallelFor(n, SearchCost(), [&](int64_t begin, int64_t end) {
      Search(keys, begin, end, [&](int64_t i, float* row) { rows[i] = row; });
    });
  }

  // Inserts keys, which differ and are not in the table.
  Status Insert(const int64_t* keys, int64_t n, WorkerPool* pool) {
    const int64_t max_rows = options().max_rows;
    if (max_rows >= 0 && CountRows() + n > max_rows) {
      return Error(Code::kResourceExhausted, "table '", options().name, "' has ", CountRows(),
                   " of max_rows = ", max_rows, " rows and cannot take ", n, " more");
    }
    const int64_t dim = options().dim;
    MemoryGuard memory(options().name);
    ForEachShard(keys, n, pool, [&](Store* store, const int64_t* first, const int64_t* last) {
      memory.Run([&] { store->Reserve(last - first); });
    });
    SPARSE_EMB_RETURN_IF_ERROR(memory.status());
    ForEachShard(keys, n, pool, [&](Store* store, const int64_t* first, const int64_t* last) {
      for (const int64_t* i = first; i < last; ++i) {
        float* row = store->Insert(keys[*i], HashKey(keys[*i]));
        options().initial_row.Fill(keys[*i], row, dim);
        std::copy(binding_.initial_state.begin(), binding_.initial_state.end(), row + dim);
      }
    });
    return {};
  }

  Status CheckKeysDiffer(const int64_t* keys, int64_t n, WorkerPool* pool) const {
    const UniqueKeys unique(keys, n, pool);
    if (unique.size == n) return {};
    // While no key has come twice, the i-th key is the i-th unique one.
    int64_t i = 0;
    while (unique.inverse[i] == i) ++i;
    return Error(Code::kInvalidArgument, "keys must differ, got key ", keys[i], " at positions ",
                 unique.inverse[i], " and ", i, " (table '", options().name, "')");
  }

  int64_t CountRows() const {
    int64_t rows = 0;
    for (const Store& store : stores_) rows += store.size();
    return rows;
  }

  const StoreOptions store_options_;
  const typename Store::Router shard_of_;

  mutable std::mutex gate_;          // taken before mutex_, and given back when that is held
  mutable std::shared_mutex mutex_;  // guards all below
  std::vector<Store> stores_;
  Binding binding_;
  int64_t stored_state_width_ = 0;  // of every store's rows; -1: a Bind failed, they may differ
  int64_t last_token_ = 0;
  int64_t changes_ = 0;  // counts what changes or removes rows that exist
};

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_SHARDED_TABLE_H_
