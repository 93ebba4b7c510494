// The storage of a bounded vocabulary: row = key, no hashing. Each shard holds a range of keys;
// its rows are allocated at the first insert. A flag for each row tells whether the key is in the
// table; when all are, as they are after a layer's build, the flags are not read.
#ifndef TF_SPARSE_EMB_CC_LIB_INDEX_STORE_H_
#define TF_SPARSE_EMB_CC_LIB_INDEX_STORE_H_

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "cc/lib/arena_buffer.h"
#include "cc/lib/store.h"
#include "cc/lib/vector_ops.h"

namespace sparse_emb {

class IndexStore {
 public:
  static constexpr bool kRowsStay = true;

  // The keys of a shard are those with the same bits above range_bits.
  class Router {
   public:
    explicit Router(const StoreOptions& options) {
      while ((options.input_dim - 1) >> range_bits_ >= kShards) ++range_bits_;
    }
    int operator()(int64_t key, uint64_t) const { return static_cast<int>(key >> range_bits_); }
    int range_bits() const { return range_bits_; }

   private:
    int range_bits_ = 0;
  };

  IndexStore(const StoreOptions& options, int shard)
      : row_floats_(options.row_floats), arena_(options.arena) {
    const int64_t range = int64_t{1} << Router(options).range_bits();
    first_key_ = shard * range;
    capacity_ = std::clamp<int64_t>(options.input_dim - first_key_, 0, range);
  }

  SPARSE_EMB_INLINE void PrefetchIndex(int64_t key, uint64_t) const {
    if (size_ < capacity_ && !used_.empty()) __builtin_prefetch(&used_[key - first_key_]);
  }
  SPARSE_EMB_INLINE float* PrefetchRow(int64_t key, uint64_t, int64_t floats) const {
    if (used_.empty()) return nullptr;
    PrefetchBytes(RowOf(key), floats * sizeof(float));
    return size_ == capacity_ ? RowOf(key) : nullptr;
  }

  float* Find(int64_t key, uint64_t) const {
    return size_ == capacity_ || (!used_.empty() && used_[key - first_key_]) ? RowOf(key) : nullptr;
  }

  SPARSE_EMB_INLINE float* Find(int64_t key, uint64_t hash, float* guess) const {
    return guess != nullptr ? guess : Find(key, hash);
  }

  void Reserve(int64_t count) {
    if (count == 0 || !used_.empty()) return;
    ArenaBuffer rows = Allocate(capacity_, row_floats_);
    used_.resize(capacity_);
    rows_ = std::move(rows);
  }

  void Trim() {
    if (size_ == 0) Clear();
    if (arena_ != nullptr) arena_->Trim();
  }

  float* Insert(int64_t key, uint64_t) {
    used_[key - first_key_] = 1;
    ++size_;
    return RowOf(key);
  }

  bool Remove(int64_t key, uint64_t) {
    if (used_.empty() || !used_[key - first_key_]) return false;
    used_[key - first_key_] = 0;
    --size_;
    return true;
  }

  void Clear() {
    used_ = std::vector<uint8_t>();
    rows_ = ArenaBuffer();
    size_ = 0;
  }

  void Resize(int64_t row_floats, int64_t keep) {
    ArenaBuffer rows = Allocate(used_.size(), row_floats);
    for (uint64_t i = 0; i < used_.size(); ++i) {
      const float* from = RowOf(first_key_ + i);
      std::copy(from, from + keep, reinterpret_cast<float*>(rows.data()) + i * row_floats);
    }
    rows_ = std::move(rows);
    row_floats_ = row_floats;
  }

  int64_t size() const { return size_; }
  int64_t row_floats() const { return row_floats_; }

  int64_t MemoryBytes() const { return sizeof(*this) + used_.capacity() + rows_.size(); }

  int64_t Capacity() const { return capacity_; }
  int64_t Probes(int64_t, uint64_t) const { return 1; }

  template <class Fn>
  int64_t ForEachFrom(int64_t position, int64_t limit, const Fn& fn) const {
    const int64_t slots = used_.size();
    for (; position < slots && limit > 0; ++position) {
      if (!used_[position]) continue;
      fn(first_key_ + position, RowOf(first_key_ + position));
      --limit;
    }
    return position < slots ? position : -1;
  }

  Status Check() const {
    const int64_t slots = used_.size();
    if ((slots != 0 && slots != capacity_) ||
        rows_.size() < slots * row_floats_ * static_cast<int64_t>(sizeof(float))) {
      return Error(Code::kDataLoss, capacity_, " keys from ", first_key_, " on have ", slots,
                   " flags and ", rows_.size(), " bytes of rows of ", row_floats_, " floats");
    }
    const int64_t used =
        std::count_if(used_.begin(), used_.end(), [](uint8_t u) { return u != 0; });
    if (used == size_) return {};
    return Error(Code::kDataLoss, used, " of the keys from ", first_key_,
                 " on are in use, but the size is ", size_);
  }

 private:
  friend struct StorePeer;

  // Shards share huge pages, unless they have many: the end of a block is in small ones.
  ArenaBuffer Allocate(int64_t rows, int64_t row_floats) const {
    constexpr int64_t kFromBytes = 32 << 10, kToBytes = 8 * kHugePageBytes;
    const int64_t bytes = BytesOf(rows, row_floats * sizeof(float));
    return ArenaBuffer(bytes, bytes >= kFromBytes && bytes < kToBytes ? arena_ : nullptr);
  }

  float* RowOf(int64_t key) const {
    return reinterpret_cast<float*>(rows_.data()) + (key - first_key_) * row_floats_;
  }

  int64_t row_floats_;
  int64_t first_key_;
  int64_t capacity_;
  std::vector<uint8_t> used_;
  ArenaBuffer rows_;
  std::shared_ptr<ChunkArena> arena_;
  int64_t size_ = 0;
};

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_INDEX_STORE_H_
