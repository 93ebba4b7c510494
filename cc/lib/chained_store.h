// Four arrays, first_keys, keys, values and next (DenseEmbeddingVar2 in the literature): each
// bucket heads a chain of rows, and the rows stand densely, in order of insertion. No row is wasted
// on an empty slot, but a search follows one link for each key of the chain.
#ifndef TF_SPARSE_EMB_CC_LIB_CHAINED_STORE_H_
#define TF_SPARSE_EMB_CC_LIB_CHAINED_STORE_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "cc/lib/aligned_buffer.h"
#include "cc/lib/store.h"
#include "cc/lib/vector_ops.h"

namespace sparse_emb {

class ChainedStore : public HashedStore {
 public:
  static constexpr bool kRowsStay = false;

  ChainedStore(const StoreOptions& options, int /*shard*/) : row_floats_(options.row_floats) {}

  SPARSE_EMB_INLINE void PrefetchIndex(int64_t, uint64_t hash) const {
    if (!first_.empty()) __builtin_prefetch(&first_[Bucket(hash)]);
  }

  SPARSE_EMB_INLINE float* PrefetchRow(int64_t, uint64_t hash, int64_t floats) const {
    if (first_.empty()) return nullptr;
    const int32_t row = first_[Bucket(hash)];
    if (row == kNone) return nullptr;
    __builtin_prefetch(&keys_[row]);
    __builtin_prefetch(&next_[row]);
    PrefetchBytes(RowAt(row), floats * sizeof(float));
    return nullptr;
  }

  float* Find(int64_t key, uint64_t hash) const {
    if (first_.empty()) return nullptr;
    for (int32_t row = first_[Bucket(hash)]; row != kNone; row = next_[row]) {
      if (keys_[row] == key) return RowAt(row);
    }
    return nullptr;
  }

  float* Find(int64_t key, uint64_t hash, float*) const { return Find(key, hash); }

  void Reserve(int64_t count) {
    const int64_t rows = size() + count;
    // Geometric growth of the dense arrays, as push_back would.
    const int64_t capacity = std::max<int64_t>(keys_.capacity(), 8);
    if (rows > static_cast<int64_t>(keys_.capacity())) {
      const int64_t room = std::max(rows, capacity + capacity / 2);
      // keys_ last: its capacity tells that all three have the room.
      values_.reserve(BytesOf(room, row_floats_ * sizeof(float)) / sizeof(float));
      next_.reserve(room);
      keys_.reserve(room);
    }
    uint64_t buckets = std::max<uint64_t>(first_.size(), 8);
    while (static_cast<int64_t>(buckets) < rows) buckets *= 2;
    if (buckets == first_.size()) return;
    first_ = std::vector<int32_t>(buckets, kNone);
    for (int64_t row = 0; row < size(); ++row) Link(static_cast<int32_t>(row));
  }

  // But for the buckets, which are small beside the rows.
  void Trim() {
    if (size() == 0) return Clear();
    keys_.shrink_to_fit();                         // without memory it does nothing
    if (keys_.capacity() != keys_.size()) return;  // Reserve trusts that the others have as much
    next_.shrink_to_fit();
    values_.shrink_to_fit();
  }

  float* Insert(int64_t key, uint64_t) {
    const int32_t row = static_cast<int32_t>(size());
    keys_.push_back(key);
    next_.push_back(kNone);
    values_.resize(values_.size() + row_floats_);
    Link(row);
    return RowAt(row);
  }

  // The last row moves into the gap.
  bool Remove(int64_t key, uint64_t hash) {
    if (first_.empty()) return false;
    int32_t* link = &first_[Bucket(hash)];
    while (*link != kNone && keys_[*link] != key) link = &next_[*link];
    if (*link == kNone) return false;
    const int32_t gap = *link;
    *link = next_[gap];
    const int32_t last = static_cast<int32_t>(size()) - 1;
    if (gap != last) {
      int32_t* to_last = &first_[Bucket(HashKey(keys_[last]))];
      while (*to_last != last) to_last = &next_[*to_last];
      *to_last = gap;
      keys_[gap] = keys_[last];
      next_[gap] = next_[last];
      std::copy(RowAt(last), RowAt(last) + row_floats_, RowAt(gap));
    }
    keys_.pop_back();
    next_.pop_back();
    values_.resize(values_.size() - row_floats_);
    return true;
  }

  void Clear() {
    first_ = std::vector<int32_t>();
    keys_ = std::vector<int64_t>();
    next_ = std::vector<int32_t>();
    values_ = std::vector<float>();
  }

  void Resize(int64_t row_floats, int64_t keep) {
    std::vector<float> values;
    values.reserve(BytesOf(keys_.capacity(), row_floats * sizeof(float)) / sizeof(float));
    values.resize(keys_.size() * row_floats);
    for (int64_t row = 0; row < size(); ++row) {
      std::copy(RowAt(row), RowAt(row) + keep, &values[row * row_floats]);
    }
    values_.swap(values);
    row_floats_ = row_floats;
  }

  int64_t size() const { return static_cast<int64_t>(keys_.size()); }
  int64_t row_floats() const { return row_floats_; }

  int64_t MemoryBytes() const {
    return sizeof(*this) + first_.capacity() * sizeof(int32_t) +
           keys_.capacity() * sizeof(int64_t) + next_.capacity() * sizeof(int32_t) +
           values_.capacity() * sizeof(float);
  }

  int64_t Capacity() const { return first_.size(); }

  int64_t Probes(int64_t key, uint64_t hash) const {
    int64_t probes = 1;
    for (int32_t row = first_[Bucket(hash)]; keys_[row] != key; row = next_[row]) ++probes;
    return probes;
  }

  template <class Fn>
  int64_t ForEachFrom(int64_t position, int64_t limit, const Fn& fn) const {
    for (; position < size() && limit > 0; ++position, --limit) {
      fn(keys_[position], RowAt(position));
    }
    return position < size() ? position : -1;
  }

  Status Check() const {
    const int64_t buckets = first_.size(), floats = values_.size();
    if ((buckets & (buckets - 1)) != 0 || static_cast<int64_t>(next_.size()) != size() ||
        floats != size() * row_floats_ || (buckets == 0 && size() > 0)) {
      return Error(Code::kDataLoss, size(), " keys have ", next_.size(), " links, ", floats,
                   " floats in rows of ", row_floats_, " and ", buckets, " buckets");
    }
    int64_t linked = 0;
    for (int64_t bucket = 0; bucket < buckets; ++bucket) {
      for (int32_t row = first_[bucket]; row != kNone; row = next_[row]) {
        if (row < 0 || row >= size()) {
          return Error(Code::kDataLoss, "the chain of bucket ", bucket, " links to row ", row,
                       " of ", size());
        }
        const int64_t key = keys_[row];
        if (static_cast<int64_t>(Bucket(HashKey(key))) != bucket) {
          return Error(Code::kDataLoss, "key ", key, " is in the chain of another bucket");
        }
        if (++linked > size()) {
          return Error(Code::kDataLoss, "key ", key, " is linked twice: its chain has no end");
        }
        if (Find(key, HashKey(key)) != RowAt(row)) {
          return Error(Code::kDataLoss, "key ", key, " is in the table twice");
        }
      }
    }
    if (linked == size()) return {};
    return Error(Code::kDataLoss, linked, " keys are in chains, but the size is ", size());
  }

 private:
  friend struct StorePeer;
  static constexpr int32_t kNone = -1;

  uint64_t Bucket(uint64_t hash) const { return hash & (first_.size() - 1); }
  float* RowAt(int64_t row) const { return const_cast<float*>(values_.data()) + row * row_floats_; }

  void Link(int32_t row) {
    int32_t& head = first_[Bucket(HashKey(keys_[row]))];
    next_[row] = head;
    head = row;
  }

  int64_t row_floats_;
  std::vector<int32_t> first_;  // per bucket: the first row of its chain
  std::vector<int64_t> keys_;
  std::vector<int32_t> next_;
  std::vector<float> values_;
};

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_CHAINED_STORE_H_
