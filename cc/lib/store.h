// What a storage is: one shard of a table, for one thread at a time. ShardedTable<Store>
// (sharded_table.h) makes a thread-safe Table of any class with these members:
//
//   Store(const StoreOptions&, int shard)
//   static constexpr bool kRowsStay         rows never move while others are inserted
//   class Router: Router(const StoreOptions&); int operator()(key, hash) const, the shard of a key
//   void PrefetchIndex(key, hash) const     first cache line of a search. SPARSE_EMB_INLINE, as is
//                                           PrefetchRow: GCC takes a function that only prefetches
//                                           for one without effect, and drops calls of it
//   float* PrefetchRow(key, hash, floats) const
//                                           reads that line, prefetches so many floats of the row
//                                           that it points to, and may return that row as a guess
//   float* Find(key, hash) const            the row, or null
//   float* Find(key, hash, guess) const     the same, quicker where what PrefetchRow returned is it
//   void Reserve(count)                     room for count more keys; may throw std::bad_alloc,
//                                           and then nothing has changed
//   void Trim()                             gives back what Reserve took and no key has; may throw
//                                           and move rows as Reserve does
//   float* Insert(key, hash)                a new row for a key that is not there, after Reserve;
//                                           its floats are undefined. Other rows may have moved
//                                           before (in Reserve), but do not move here
//   bool Remove(key, hash)                  false if the key is not there; needs no memory
//   void Clear()
//   void Resize(row_floats, keep)           changes the rows' width, keeps the first `keep` floats;
//                                           may throw as Reserve does
//   int64_t size() const, MemoryBytes() const
//   int64_t Capacity() const                rows that the index takes before it grows
//   int64_t Probes(key, hash) const         places of the index that finding this key reads
//   int64_t ForEachFrom(position, limit, fn(key, row)) const
//                                           the rows in the storage's order from `position` (0: the
//                                           first) on, `limit` at most, but all of a position that
//                                           holds several; returns the next, -1 after the last
//   int64_t row_floats() const
//   Status Check() const                    kDataLoss, with the key where there is one, if the
//                                           parts of the store do not agree (that every key is
//                                           found again is for sharded_rows_check.h); may throw as
//                                           Reserve does
//   friend struct StorePeer                 by which tests damage it
//
// `hash` is HashKey(key).
#ifndef TF_SPARSE_EMB_CC_LIB_STORE_H_
#define TF_SPARSE_EMB_CC_LIB_STORE_H_

#include <cstdint>
#include <limits>
#include <memory>

#include "cc/lib/hash.h"
#include "cc/lib/huge_pages.h"
#include "cc/lib/status.h"

namespace sparse_emb {

// A power of two: how many parts of a table can be changed at once.
inline constexpr int kShardBits = 6;
inline constexpr int kShards = 1 << kShardBits;

inline constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();

struct StorePeer;

struct StoreOptions {
  int64_t row_floats = 0;
  int64_t input_dim = -1;                       // keys are in [0, input_dim); -1: every int64
  std::shared_ptr<ChunkArena> arena = nullptr;  // for the rows of all shards, or null
};

// The base of the storages that hash: the top bits of the hash choose the shard.
class HashedStore {
 public:
  class Router {
   public:
    explicit Router(const StoreOptions&) {}
    int operator()(int64_t, uint64_t hash) const {
      return static_cast<int>(hash >> (64 - kShardBits));
    }
  };
};

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_STORE_H_
