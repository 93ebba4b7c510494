// The plainest storage: std::unordered_map from the key to its own row (HashEmbeddingVar in the
// literature). Three dependent cache misses a search, about 72 bytes beyond the row; kept as the
// reference that the others are measured against.
#ifndef TF_SPARSE_EMB_CC_LIB_UNORDERED_MAP_STORE_H_
#define TF_SPARSE_EMB_CC_LIB_UNORDERED_MAP_STORE_H_

#include <algorithm>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "cc/lib/store.h"

namespace sparse_emb {

class UnorderedMapStore : public HashedStore {
 public:
  static constexpr bool kRowsStay = true;

  UnorderedMapStore(const StoreOptions& options, int /*shard*/) : row_floats_(options.row_floats) {}

  SPARSE_EMB_INLINE void PrefetchIndex(int64_t, uint64_t) const {}
  SPARSE_EMB_INLINE float* PrefetchRow(int64_t, uint64_t, int64_t) const { return nullptr; }

  float* Find(int64_t key, uint64_t) const {
    const auto found = rows_.find(key);
    return found == rows_.end() ? nullptr : found->second.get();
  }

  float* Find(int64_t key, uint64_t hash, float*) const { return Find(key, hash); }

  void Reserve(int64_t count) {
    // Geometric growth: reserving just what is needed would rehash at every batch.
    const int64_t needed = size() + count;
    const int64_t capacity = static_cast<int64_t>(rows_.bucket_count() * rows_.max_load_factor());
    if (needed > capacity) rows_.reserve(std::max(needed, 2 * size()));
    while (static_cast<int64_t>(spare_.size()) < count) {
      spare_.emplace(static_cast<int64_t>(spare_.size()), Row(new float[row_floats_]));
    }
  }

  void Trim() { spare_ = Map(); }

  float* Insert(int64_t key, uint64_t) {
    auto node = spare_.extract(static_cast<int64_t>(spare_.size()) - 1);
    node.key() = key;
    return rows_.insert(std::move(node)).position->second.get();
  }

  bool Remove(int64_t key, uint64_t) { return rows_.erase(key) > 0; }

  void Clear() { rows_ = Map(); }

  void Resize(int64_t row_floats, int64_t keep) {
    spare_.clear();
    Map resized;
    resized.reserve(rows_.size());
    for (const auto& [key, row] : rows_) {
      Row wider(new float[row_floats]);
      std::copy(row.get(), row.get() + keep, wider.get());
      resized.emplace(key, std::move(wider));
    }
    rows_ = std::move(resized);
    row_floats_ = row_floats;
  }

  int64_t size() const { return static_cast<int64_t>(rows_.size()); }
  int64_t row_floats() const { return row_floats_; }

  int64_t MemoryBytes() const {
    // A node: next, key, pointer; and the allocator's 16 bytes for the node and for the row.
    const int64_t node = 3 * sizeof(void*) + 16;
    const int64_t row = row_floats_ * sizeof(float) + 16;
    return sizeof(*this) + rows_.bucket_count() * sizeof(void*) + size() * (node + row);
  }

  int64_t Capacity() const {
    return static_cast<int64_t>(rows_.bucket_count() * rows_.max_load_factor());
  }

  int64_t Probes(int64_t key, uint64_t) const {
    int64_t probes = 1;
    for (auto at = rows_.begin(rows_.bucket(key)); at->first != key; ++at) ++probes;
    return probes;
  }

  // A position is a bucket.
  template <class Fn>
  int64_t ForEachFrom(int64_t position, int64_t limit, const Fn& fn) const {
    const int64_t buckets = size() == 0 ? 0 : rows_.bucket_count();
    for (; position < buckets && limit > 0; ++position) {
      for (auto at = rows_.begin(position); at != rows_.end(position); ++at, --limit) {
        fn(at->first, at->second.get());
      }
    }
    return position < buckets ? position : -1;
  }

  Status Check() const {
    std::vector<std::pair<const float*, int64_t>> owners;
    owners.reserve(rows_.size());
    for (const auto& [key, row] : rows_) {
      if (row == nullptr) return Error(Code::kDataLoss, "key ", key, " has no row");
      owners.emplace_back(row.get(), key);
    }
    std::sort(owners.begin(), owners.end());
    for (size_t i = 1; i < owners.size(); ++i) {
      if (owners[i - 1].first != owners[i].first) continue;
      return Error(Code::kDataLoss, "keys ", owners[i - 1].second, " and ", owners[i].second,
                   " share a row");
    }
    return {};
  }

 private:
  friend struct StorePeer;
  using Row = std::unique_ptr<float[]>;
  struct Hash {
    size_t operator()(int64_t key) const { return HashKey(key); }
  };

  using Map = std::unordered_map<int64_t, Row, Hash>;

  int64_t row_floats_;
  Map rows_;
  Map spare_;  // nodes for the inserts that Reserve announced, under the keys 0, 1, 2, ...
};

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_UNORDERED_MAP_STORE_H_
