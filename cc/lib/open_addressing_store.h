// Two arrays, keys and values (DenseEmbeddingVar in the literature): hash to a slot, step to the
// next until the key or an empty slot. A search that hits its first slot knows the row's address
// without reading the key, so both can be fetched at once; but slots are as wide as rows, so the
// empty ones cost as much as the full ones, and growing moves every row.
//
// Which slots are in use is an array of its own, so that every key is valid. Removal shifts the
// keys that follow back over the gap (Knuth, The Art of Computer Programming 3, 6.4, algorithm R).
#ifndef TF_SPARSE_EMB_CC_LIB_OPEN_ADDRESSING_STORE_H_
#define TF_SPARSE_EMB_CC_LIB_OPEN_ADDRESSING_STORE_H_

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "cc/lib/aligned_buffer.h"
#include "cc/lib/store.h"
#include "cc/lib/vector_ops.h"

namespace sparse_emb {

class OpenAddressingStore : public HashedStore {
 public:
  static constexpr bool kRowsStay = false;

  OpenAddressingStore(const StoreOptions& options, int /*shard*/)
      : row_floats_(options.row_floats) {}

  SPARSE_EMB_INLINE void PrefetchIndex(int64_t, uint64_t hash) const {
    if (used_.empty()) return;
    __builtin_prefetch(&used_[Home(hash)]);
    __builtin_prefetch(&keys_[Home(hash)]);
  }
  SPARSE_EMB_INLINE float* PrefetchRow(int64_t, uint64_t hash, int64_t floats) const {
    if (!used_.empty()) PrefetchBytes(RowAt(Home(hash)), floats * sizeof(float));
    return nullptr;
  }

  float* Find(int64_t key, uint64_t hash) const {
    const int64_t slot = SlotOf(key, hash);
    return slot < 0 ? nullptr : RowAt(slot);
  }

  float* Find(int64_t key, uint64_t hash, float*) const { return Find(key, hash); }

  void Reserve(int64_t count) {
    const uint64_t slots = SlotsFor(size_ + count, used_.size());
    if (slots != used_.size()) Move(slots, row_floats_, row_floats_);
  }

  void Trim() {
    if (size_ == 0) return Clear();
    const uint64_t slots = SlotsFor(size_, 0);
    if (slots < used_.size()) Move(slots, row_floats_, row_floats_);
  }

  float* Insert(int64_t key, uint64_t hash) {
    uint64_t slot = Home(hash);
    while (used_[slot]) slot = Next(slot);
    used_[slot] = 1;
    keys_[slot] = key;
    ++size_;
    return RowAt(slot);
  }

  bool Remove(int64_t key, uint64_t hash) {
    const int64_t found = SlotOf(key, hash);
    if (found < 0) return false;
    uint64_t gap = static_cast<uint64_t>(found);
    for (uint64_t slot = Next(gap); used_[slot]; slot = Next(slot)) {
      // A key may fill the gap unless its home lies behind the gap, cyclically in (gap, slot].
      const uint64_t home = Home(HashKey(keys_[slot]));
      if (((slot - home) & mask()) < ((slot - gap) & mask())) continue;
      keys_[gap] = keys_[slot];
      std::copy(RowAt(slot), RowAt(slot) + row_floats_, RowAt(gap));
      gap = slot;
    }
    used_[gap] = 0;
    --size_;
    return true;
  }

  void Clear() {
    used_ = std::vector<uint8_t>();
    keys_ = std::vector<int64_t>();
    rows_ = AlignedBuffer();
    size_ = 0;
  }

  void Resize(int64_t row_floats, int64_t keep) { Move(used_.size(), row_floats, keep); }

  int64_t size() const { return size_; }
  int64_t row_floats() const { return row_floats_; }

  int64_t MemoryBytes() const {
    return sizeof(*this) + used_.capacity() + keys_.capacity() * sizeof(int64_t) + rows_.size();
  }

  int64_t Capacity() const { return used_.size() * kMaxLoadPercent / 100; }

  int64_t Probes(int64_t key, uint64_t hash) const {
    return ((static_cast<uint64_t>(SlotOf(key, hash)) - Home(hash)) & mask()) + 1;
  }

  template <class Fn>
  int64_t ForEachFrom(int64_t position, int64_t limit, const Fn& fn) const {
    const int64_t slots = used_.size();
    for (; position < slots && limit > 0; ++position) {
      if (!used_[position]) continue;
      fn(keys_[position], RowAt(position));
      --limit;
    }
    return position < slots ? position : -1;
  }

  Status Check() const {
    const int64_t slots = used_.size();
    if ((slots & (slots - 1)) != 0 || static_cast<int64_t>(keys_.size()) != slots ||
        rows_.size() != slots * row_floats_ * static_cast<int64_t>(sizeof(float))) {
      return Error(Code::kDataLoss, slots, " slots have ", keys_.size(), " keys and ", rows_.size(),
                   " bytes of rows of ", row_floats_, " floats");
    }
    const int64_t used =
        std::count_if(used_.begin(), used_.end(), [](uint8_t u) { return u != 0; });
    if (used != size_) {
      return Error(Code::kDataLoss, used, " slots are in use, but the size is ", size_);
    }
    if (used > 0 && used == slots) return Error(Code::kDataLoss, "no slot is free");
    for (int64_t slot = 0; slot < slots; ++slot) {
      if (!used_[slot]) continue;
      const int64_t found = SlotOf(keys_[slot], HashKey(keys_[slot]));
      if (found == slot) continue;
      return Error(Code::kDataLoss, "key ", keys_[slot], " in slot ", slot,
                   found < 0 ? " is not found" : " is in the table twice");
    }
    return {};
  }

 private:
  friend struct StorePeer;
  static constexpr int64_t kMaxLoadPercent = 70;

  uint64_t mask() const { return used_.size() - 1; }
  uint64_t Home(uint64_t hash) const { return hash & mask(); }
  uint64_t Next(uint64_t slot) const { return (slot + 1) & mask(); }
  float* RowAt(uint64_t slot) const {
    return reinterpret_cast<float*>(rows_.data()) + slot * row_floats_;
  }

  // For so many keys, not fewer than `slots`.
  static uint64_t SlotsFor(int64_t keys, uint64_t slots) {
    slots = std::max<uint64_t>(slots, 8);
    while (keys * 100 > static_cast<int64_t>(slots) * kMaxLoadPercent) slots *= 2;
    return slots;
  }

  int64_t SlotOf(int64_t key, uint64_t hash) const {
    if (used_.empty()) return -1;
    for (uint64_t slot = Home(hash); used_[slot]; slot = Next(slot)) {
      if (keys_[slot] == key) return static_cast<int64_t>(slot);
    }
    return -1;
  }

  // Builds the arrays anew with these many slots and floats a row.
  void Move(uint64_t slots, int64_t row_floats, int64_t keep) {
    std::vector<uint8_t> used(slots);
    std::vector<int64_t> keys(slots);
    AlignedBuffer rows(BytesOf(slots, row_floats * sizeof(float)));
    std::swap(used, used_);
    std::swap(keys, keys_);
    std::swap(rows, rows_);
    const int64_t old_row_floats = std::exchange(row_floats_, row_floats);
    size_ = 0;
    for (uint64_t slot = 0; slot < used.size(); ++slot) {
      if (!used[slot]) continue;
      const float* from = reinterpret_cast<const float*>(rows.data()) + slot * old_row_floats;
      std::copy(from, from + keep, Insert(keys[slot], HashKey(keys[slot])));
    }
  }

  int64_t row_floats_;
  std::vector<uint8_t> used_;
  std::vector<int64_t> keys_;
  AlignedBuffer rows_;
  int64_t size_ = 0;
};

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_OPEN_ADDRESSING_STORE_H_
