// The rows of a table in kShards stores (store.h), without a lock: ShardedTable (sharded_table.h)
// holds its own while it calls. Threads need none among themselves: searches and row arithmetic are
// split by position in the batch, inserts and removals by shard.
//
//   row = [embedding: D floats | counts (key_counts.h) | optimizer state: S floats]
#ifndef TF_SPARSE_EMB_CC_LIB_SHARDED_ROWS_H_
#define TF_SPARSE_EMB_CC_LIB_SHARDED_ROWS_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <memory>
#include <new>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "cc/lib/store.h"
#include "cc/lib/table.h"
#include "cc/lib/vector_ops.h"

namespace sparse_emb {

// Turns a thread's std::bad_alloc into an error of the whole operation, and what a std::vector says
// of a size that no memory has.
class MemoryGuard {
 public:
  explicit MemoryGuard(const std::string& table_name) : table_name_(table_name) {}

  template <class Fn>
  void Run(const Fn& fn) {
    try {
      fn();
    } catch (const std::bad_alloc&) {
      failed_ = true;
    } catch (const std::length_error&) {
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
class ShardedRows {
 public:
  // Rows have room for `state_width` floats of state. `options` must outlive this.
  ShardedRows(const TableOptions& options, int64_t state_width)
      : options_(&options),
        store_options_{options.dim + options.key_counts.floats() + state_width, options.input_dim,
                       std::make_shared<ChunkArena>()},
        shard_of_(store_options_) {
    stores_.reserve(kShards);
    for (int shard = 0; shard < kShards; ++shard) stores_.emplace_back(store_options_, shard);
  }

  // Where the counts and the state of a row begin.
  int64_t counts_at() const { return options_->dim; }
  int64_t state_at() const { return options_->dim + options_->key_counts.floats(); }

  const Store& store(int shard) const { return stores_[shard]; }
  int ShardOf(int64_t key) const { return shard_of_(key, HashKey(key)); }

  int64_t size() const {
    int64_t rows = 0;
    for (const Store& store : stores_) rows += store.size();
    return rows;
  }

  int64_t MemoryBytes() const {
    int64_t bytes = sizeof(*this);
    for (const Store& store : stores_) bytes += store.MemoryBytes();
    return bytes;
  }

  // rows, capacity, probes and memory_bytes.
  TableStatistics Statistics() const {
    TableStatistics out;
    for (const Store& store : stores_) {
      out.capacity += store.Capacity();
      store.ForEachFrom(0, kNoLimit, [&](int64_t key, const float*) {
        const int64_t probes = store.Probes(key, HashKey(key));
        out.probes += probes;
        out.max_probes = std::max(out.max_probes, probes);
      });
    }
    out.rows = size();
    out.memory_bytes = MemoryBytes();
    return out;
  }

  // Rough nanoseconds for one key.
  int64_t SearchCost() const { return 30 + options_->dim / 2; }

  // Calls fn(i, row of keys[i] or null), which reads so many floats of the row, for i in [begin,
  // end) in order. Searches are pipelined:
  // while one key's row is read, the rows of the next keys and the index lines of those after them
  // are on their way, so that the cache misses overlap.
  template <class Fn>
  SPARSE_EMB_INLINE void Search(const int64_t* keys, int64_t begin, int64_t end, int64_t floats,
                                const Fn& fn) const {
    constexpr int64_t kRowAhead = 12;
    constexpr int64_t kIndexAhead = 32;
    constexpr int64_t kRing = 64;
    uint64_t hashes[kRing];
    const Store* stores[kRing];
    float* guesses[kRing] = {};
    for (int64_t i = begin - kIndexAhead; i < end; ++i) {
      if (const int64_t j = i + kIndexAhead; j < end) {
        const uint64_t hash = HashKey(keys[j]);
        const Store* store = &stores_[shard_of_(keys[j], hash)];
        hashes[j % kRing] = hash;
        stores[j % kRing] = store;
        store->PrefetchIndex(keys[j], hash);
      }
      if (const int64_t j = i + kRowAhead; j >= begin && j < end) {
        guesses[j % kRing] = stores[j % kRing]->PrefetchRow(keys[j], hashes[j % kRing], floats);
      }
      if (const int64_t j = i % kRing; i >= begin) {
        fn(i, stores[j]->Find(keys[i], hashes[j], guesses[j]));
      }
    }
  }

  // Calls fn(i, row of keys[i] or null) for i in [0, n), at once for different i.
  template <class Fn>
  void ForEachRow(const int64_t* keys, int64_t n, WorkerPool* pool, const Fn& fn) const {
    const int64_t floats = store_options_.row_floats;
    pool->ParallelFor(n, SearchCost(),
                      [&](int64_t begin, int64_t end) { Search(keys, begin, end, floats, fn); });
  }

  // rows[i] = where keys[i] stands, or null.
  void Find(const int64_t* keys, int64_t n, float** rows, WorkerPool* pool) const {
    pool->ParallelFor(n, SearchCost(), [&](int64_t begin, int64_t end) {
      Search(keys, begin, end, 0, [&](int64_t i, float* row) { rows[i] = row; });
    });
  }

  // out[i] = the embedding of keys[i]. Where it is absent: with `rows`, out[i] is left alone;
  // without, what `missing` says. rows[i] = where keys[i] stands, null where it is absent. Returns
  // how many are absent.
  int64_t Read(const int64_t* keys, int64_t n, Missing missing, float* out, float** rows,
               WorkerPool* pool) const {
    std::atomic<int64_t> absent{0};
    pool->ParallelFor(n, SearchCost(), [&](int64_t begin, int64_t end) {
      int64_t absent_here = 0;
      RunOnBestIsa(options_->dim, [&](auto dim) SPARSE_EMB_INLINE_LAMBDA {
        Search(keys, begin, end, dim, [&](int64_t i, float* row) SPARSE_EMB_INLINE_LAMBDA {
          if (rows != nullptr) rows[i] = row;
          if (row != nullptr) {
            Copy(row, out + i * dim, dim);
            return;
          }
          ++absent_here;
          if (rows == nullptr) FillMissing(keys[i], missing, out + i * dim);
        });
      });
      absent += absent_here;
    });
    return absent;
  }

  // Writes what a key that is not there reads as.
  void FillMissing(int64_t key, Missing missing, float* row) const {
    if (missing == Missing::kZeros || options_->padding_key == key) {
      std::fill(row, row + options_->dim, 0.0f);
    } else {
      options_->initial_row.Fill(key, row, options_->dim);
    }
  }

  // Inserts keys, which are not there, with their initial embeddings, no counts and this state.
  // They differ; where a caller's word for that is wrong, a key has one row all the same. If memory
  // runs out, nothing has changed, but rows may have moved.
  Status Insert(const int64_t* keys, int64_t n, const std::vector<float>& initial_state,
                int64_t step, WorkerPool* pool) {
    MemoryGuard memory(options_->name);
    const ByShard by_shard = Sort(keys, n);
    ForEachShard(by_shard, pool, [&](Store* store, const int64_t* first, const int64_t* last) {
      memory.Run([&] { store->Reserve(last - first); });
    });
    if (Status status = memory.status(); !status.ok()) {
      Trim();
      return status;
    }
    ForEachShard(by_shard, pool, [&](Store* store, const int64_t* first, const int64_t* last) {
      ForEachKey(*store, keys, first, last, [&](int64_t i, uint64_t hash) {
        if (store->Find(keys[i], hash) != nullptr) return;
        float* row = store->Insert(keys[i], hash);
        FillMissing(keys[i], Missing::kInitial, row);
        options_->key_counts.SetZero(row + counts_at(), step);
        std::copy(initial_state.begin(), initial_state.end(), row + state_at());
      });
    });
    return {};
  }

  void Remove(const int64_t* keys, int64_t n, WorkerPool* pool) {
    ForEachShard(Sort(keys, n), pool, [&](Store* store, const int64_t* first, const int64_t* last) {
      ForEachKey(*store, keys, first, last,
                 [&](int64_t i, uint64_t hash) { store->Remove(keys[i], hash); });
    });
  }

  void Clear() {
    for (Store& store : stores_) store.Clear();
  }

  // Gives all rows this state; with `resize`, after making room for it. If memory runs out, some
  // rows have room for it and others have not.
  Status SetState(const std::vector<float>& state, bool resize, WorkerPool* pool) {
    MemoryGuard memory(options_->name);
    if (resize) store_options_.row_floats = state_at() + state.size();
    pool->ParallelFor(kShards, 1 << 20, [&](int64_t begin, int64_t end) {
      for (int64_t shard = begin; shard < end; ++shard) {
        memory.Run([&] {
          if (resize) stores_[shard].Resize(state_at() + state.size(), state_at());
          stores_[shard].ForEachFrom(0, kNoLimit, [&](int64_t, float* row) {
            std::copy(state.begin(), state.end(), row + state_at());
          });
        });
      }
    });
    if (!memory.status().ok()) Trim();
    return memory.status();
  }

  // Inserts keys which must differ and not be there, and calls fill(i, row) to set all of the row
  // of keys[i]. *repeated = the position of one that was there already, or -1; the rows are not to
  // be used then, nor after an error.
  template <class Fn>
  Status InsertAll(const int64_t* keys, int64_t n, WorkerPool* pool, const Fn& fill,
                   int64_t* repeated) {
    MemoryGuard memory(options_->name);
    std::atomic<int64_t> found{-1};
    ForEachShard(Sort(keys, n), pool, [&](Store* store, const int64_t* first, const int64_t* last) {
      memory.Run([&] {
        store->Reserve(last - first);
        ForEachKey(*store, keys, first, last, [&](int64_t i, uint64_t hash) {
          if (store->Find(keys[i], hash) != nullptr) {
            found = i;
          } else {
            fill(i, store->Insert(keys[i], hash));
          }
        });
      });
    });
    *repeated = found;
    return memory.status();
  }

  // Makes room for so many rows, if they are spread as the hash spreads them.
  Status Reserve(int64_t rows, WorkerPool* pool) {
    MemoryGuard memory(options_->name);
    pool->ParallelFor(kShards, 1 << 20, [&](int64_t begin, int64_t end) {
      for (int64_t shard = begin; shard < end; ++shard) {
        memory.Run([&] { stores_[shard].Reserve(rows / kShards); });
      }
    });
    return memory.status();
  }

  // The rows of one shard, as Store::ForEachFrom gives them.
  template <class Fn>
  int64_t ForEachInShard(int shard, int64_t position, int64_t limit, const Fn& fn) const {
    return stores_[shard].ForEachFrom(position, limit, fn);
  }

  // Calls fn(key, row) as Table::Export says and returns the next cursor: the shard in the high
  // bits, the position in its store in the low ones.
  template <class Fn>
  int64_t ForEachFrom(int64_t cursor, int64_t limit, const Fn& fn) const {
    int64_t position = cursor & (kShardStride - 1);
    for (int64_t shard = cursor / kShardStride; shard < kShards; ++shard, position = 0) {
      if (limit <= 0) return shard * kShardStride;
      position = stores_[shard].ForEachFrom(position, limit, [&](int64_t key, const float* row) {
        fn(key, row);
        --limit;
      });
      if (position >= 0) return shard * kShardStride + position;
    }
    return -1;
  }

 private:
  static constexpr int64_t kShardStride = int64_t{1} << 48;

  // Gives back what an Insert without memory has taken in some shards: whoever goes on with the
  // rows that are there needs a little too.
  void Trim() {
    for (Store& store : stores_) {
      try {
        store.Trim();
      } catch (const std::bad_alloc&) {  // it keeps what it has
      }
    }
  }

  // The positions of keys by their shard: those of shard s, ascending, are
  // positions[begin[s] .. begin[s + 1]).
  struct ByShard {
    std::vector<int64_t> positions;
    std::array<int64_t, kShards + 1> begin = {};
  };

  ByShard Sort(const int64_t* keys, int64_t n) const {
    ByShard sorted;
    std::vector<uint8_t> shards(n);
    for (int64_t i = 0; i < n; ++i) {
      shards[i] = static_cast<uint8_t>(ShardOf(keys[i]));
      ++sorted.begin[shards[i] + 1];
    }
    std::partial_sum(sorted.begin.begin(), sorted.begin.end(), sorted.begin.begin());
    sorted.positions.resize(n);
    std::array<int64_t, kShards + 1> next = sorted.begin;
    for (int64_t i = 0; i < n; ++i) sorted.positions[next[shards[i]]++] = i;
    return sorted;
  }

  // Calls fn(store, first, last) for every shard that has keys, at once for different shards;
  // [first, last) are the positions of its keys.
  template <class Fn>
  void ForEachShard(const ByShard& keys, WorkerPool* pool, const Fn& fn) {
    const int64_t n = static_cast<int64_t>(keys.positions.size());
    pool->ParallelFor(kShards, (n / kShards + 1) * 100, [&](int64_t first, int64_t last) {
      for (int64_t shard = first; shard < last; ++shard) {
        const int64_t* const positions = keys.positions.data();
        const int64_t begin = keys.begin[shard], end = keys.begin[shard + 1];
        if (begin < end) fn(&stores_[shard], positions + begin, positions + end);
      }
    });
  }

  // Calls fn(i, hash of keys[i]) for the positions i of [first, last), to search for the key: its
  // index line is on its way by then.
  template <class Fn>
  static void ForEachKey(const Store& store, const int64_t* keys, const int64_t* first,
                         const int64_t* last, const Fn& fn) {
    constexpr int64_t kAhead = 16;
    for (const int64_t* i = first; i < last; ++i) {
      if (last - i > kAhead) store.PrefetchIndex(keys[i[kAhead]], HashKey(keys[i[kAhead]]));
      fn(*i, HashKey(keys[*i]));
    }
  }

  friend struct StorePeer;

  const TableOptions* options_;
  StoreOptions store_options_;
  typename Store::Router shard_of_;
  std::vector<Store> stores_;
};

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_SHARDED_ROWS_H_
