// The default storage: an open-addressing index over rows that never move.
//
// Index: buckets of one cache line, each with 12 slots of a tag (8 bits of the hash) and a row
// number. A search reads one line, compares the 12 tags at once and goes to the row whose tag
// agrees; the row begins with its key, so checking it costs no other line. Full buckets spill into
// the next; `spilled` counts the keys that passed a bucket by, so that a search knows when to stop
// and a removal needs no tombstone (the counting is that of Folly's F14).
//
//   row = [key: 8 bytes | embedding: D floats | state: S floats]
//
// Bytes beyond 4 (D + S) a row: 8 for the key, an eighth or two, and 64 / 12 / load for the index,
// the load being between .425 (after growth) and .85: 14.3 to 20.5, and at most a 32nd of the rows
// of a large table unused.
#ifndef TF_SPARSE_EMB_CC_LIB_SLAB_STORE_H_
#define TF_SPARSE_EMB_CC_LIB_SLAB_STORE_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cc/lib/aligned_buffer.h"
#include "cc/lib/row_chunks.h"
#include "cc/lib/store.h"
#include "cc/lib/vector_ops.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace sparse_emb {

class SlabStore : public HashedStore {
 public:
  static constexpr bool kRowsStay = true;

  SlabStore(const StoreOptions& options, int /*shard*/)
      : arena_(options.arena), rows_(RowBytes(options.row_floats), arena_) {}

  SPARSE_EMB_INLINE void PrefetchIndex(int64_t, uint64_t hash) const {
    if (!buckets_.empty()) __builtin_prefetch(&buckets_[Home(hash)]);
  }

  SPARSE_EMB_INLINE float* PrefetchRow(int64_t, uint64_t hash, int64_t floats) const {
    if (buckets_.empty()) return nullptr;
    const Bucket& bucket = buckets_[Home(hash)];
    const uint32_t match = bucket.Match(Tag(hash));
    if (match == 0) return nullptr;
    char* const row = rows_.Row(bucket.rows[__builtin_ctz(match)]);
    PrefetchBytes(row, RowBytes(floats));
    return Floats(row);
  }

  float* Find(int64_t key, uint64_t hash) const {
    const Place place = Search(key, hash);
    return place.slot < 0 ? nullptr : Floats(rows_.Row(buckets_[place.bucket].rows[place.slot]));
  }

  SPARSE_EMB_INLINE float* Find(int64_t key, uint64_t hash, float* guess) const {
    if (guess != nullptr && KeyOf(reinterpret_cast<char*>(guess) - RowBytes(0)) == key)
      return guess;
    return Find(key, hash);
  }

  void Reserve(int64_t count) {
    if (const int64_t fresh = count - free_rows_; fresh > 0) {
      const int64_t rows = used_rows_ + fresh, capacity = is_free_.capacity();
      rows_.Reserve(rows);
      if (rows > capacity) is_free_.reserve(std::max(rows, 2 * capacity));  // for Remove
    }
    uint64_t buckets = std::max<uint64_t>(buckets_.size(), 1);
    while ((size_ + count) * 100 > static_cast<int64_t>(buckets * kSlots) * kMaxLoadPercent) {
      buckets *= 2;
    }
    if (buckets != buckets_.size()) Rehash(buckets);
  }

  // But for the index, which is small beside the rows.
  void Trim() { rows_.Trim(used_rows_); }

  float* Insert(int64_t key, uint64_t hash) {
    uint32_t row_number;
    if (free_rows_ == 0) {
      row_number = static_cast<uint32_t>(used_rows_++);
    } else {
      row_number = static_cast<uint32_t>(first_free_);
      first_free_ = KeyOf(rows_.Row(row_number));
      --free_rows_;
      is_free_[row_number] = false;
    }
    char* row = rows_.Row(row_number);
    SetKey(row, key);
    AddToIndex(hash, row_number, &buckets_);
    ++size_;
    return Floats(row);
  }

  bool Remove(int64_t key, uint64_t hash) {
    const Place place = Search(key, hash);
    if (place.slot < 0) return false;
    const uint32_t row_number = buckets_[place.bucket].rows[place.slot];
    SetKey(rows_.Row(row_number), first_free_);
    first_free_ = row_number;
    ++free_rows_;
    is_free_.resize(used_rows_);  // Reserve has made the room
    is_free_[row_number] = true;
    buckets_[place.bucket].tags[place.slot] = 0;
    for (uint64_t passed = Home(hash); passed != place.bucket; passed = Next(passed)) {
      if (buckets_[passed].spilled != kSpilledForever) --buckets_[passed].spilled;
    }
    --size_;
    return true;
  }

  void Clear() {
    buckets_ = Buckets(0);
    rows_ = RowChunks(rows_.row_bytes(), arena_);
    is_free_ = std::vector<bool>();
    used_rows_ = free_rows_ = size_ = 0;
    first_free_ = kNone;
  }

  void Resize(int64_t row_floats, int64_t keep) {
    RowChunks resized(RowBytes(row_floats), arena_);
    resized.Reserve(used_rows_);
    for (int64_t r = 0; r < used_rows_; ++r) {
      const uint32_t row = static_cast<uint32_t>(r);
      std::memcpy(resized.Row(row), rows_.Row(row), RowBytes(keep));
      rows_.ReleaseBefore(row);
    }
    rows_ = std::move(resized);
  }

  int64_t size() const { return size_; }
  int64_t row_floats() const { return (rows_.row_bytes() - RowBytes(0)) / sizeof(float); }

  int64_t MemoryBytes() const {
    return sizeof(*this) + buckets_.size() * sizeof(Bucket) + rows_.MemoryBytes() +
           is_free_.capacity() / 8;
  }

  int64_t Capacity() const { return buckets_.size() * kSlots * kMaxLoadPercent / 100; }

  int64_t Probes(int64_t key, uint64_t hash) const {
    return ((Search(key, hash).bucket - Home(hash)) & (buckets_.size() - 1)) + 1;
  }

  template <class Fn>
  int64_t ForEachFrom(int64_t position, int64_t limit, const Fn& fn) const {
    for (; position < used_rows_ && limit > 0; ++position) {
      if (IsFree(position)) continue;
      char* row = rows_.Row(static_cast<uint32_t>(position));
      fn(KeyOf(row), Floats(row));
      --limit;
    }
    return position < used_rows_ ? position : -1;
  }

  Status Check() const {
    SPARSE_EMB_RETURN_IF_ERROR(CheckFreeRows());
    SPARSE_EMB_RETURN_IF_ERROR(CheckIndex());
    if (size_ == used_rows_ - free_rows_) return {};
    return Error(Code::kDataLoss, used_rows_ - free_rows_, " rows are in use, but the size is ",
                 size_);
  }

 private:
  friend struct StorePeer;
  static constexpr int kSlots = 12;
  static constexpr int64_t kMaxLoadPercent = 85;
  static constexpr uint8_t kSpilledForever = 255;
  static constexpr int64_t kNone = -1;

  struct alignas(64) Bucket {
    uint8_t tags[kSlots];  // 0: empty
    uint8_t spilled;       // keys that passed this bucket by; 255: at some time 255 or more
    uint32_t rows[kSlots];

    // One bit for each slot with this tag.
    uint32_t Match(uint8_t tag) const {
#if defined(__SSE2__)
      // The 4 bytes past the tags belong to this bucket and are masked out.
      const __m128i all = _mm_load_si128(reinterpret_cast<const __m128i*>(tags));
      return _mm_movemask_epi8(_mm_cmpeq_epi8(all, _mm_set1_epi8(static_cast<char>(tag)))) &
             ((1u << kSlots) - 1);
#else
      uint32_t match = 0;
      for (int i = 0; i < kSlots; ++i) match |= static_cast<uint32_t>(tags[i] == tag) << i;
      return match;
#endif
    }
  };
  static_assert(sizeof(Bucket) == 64, "a bucket is a cache line");

  // A number of empty buckets, which is a power of two, or none.
  class Buckets {
   public:
    explicit Buckets(uint64_t size)
        : memory_(static_cast<int64_t>(size * sizeof(Bucket))), size_(size) {}

    uint64_t size() const { return size_; }
    bool empty() const { return size_ == 0; }
    Bucket& operator[](uint64_t b) const { return begin()[b]; }
    Bucket* begin() const { return reinterpret_cast<Bucket*>(memory_.data()); }
    Bucket* end() const { return begin() + size_; }

   private:
    AlignedBuffer memory_;  // zeros, as an empty bucket is
    uint64_t size_;
  };

  // Where a key stands in the index; slot -1: nowhere.
  struct Place {
    uint64_t bucket;
    int slot;
  };

  // The table takes the hash's top bits for the shard; the tag is its low byte, the bucket's number
  // comes from between.
  static uint8_t Tag(uint64_t hash) {
    const uint8_t tag = static_cast<uint8_t>(hash);
    return tag == 0 ? 1 : tag;
  }
  uint64_t Home(uint64_t hash) const { return (hash >> 8) & (buckets_.size() - 1); }
  uint64_t Next(uint64_t bucket) const { return (bucket + 1) & (buckets_.size() - 1); }

  static int64_t RowBytes(int64_t floats) { return sizeof(int64_t) + floats * sizeof(float); }
  static int64_t KeyOf(const char* row) {
    int64_t key;
    std::memcpy(&key, row, sizeof(key));
    return key;
  }
  static void SetKey(char* row, int64_t key) { std::memcpy(row, &key, sizeof(key)); }
  static float* Floats(char* row) { return reinterpret_cast<float*>(row + sizeof(int64_t)); }

  Place Search(int64_t key, uint64_t hash) const {
    const uint8_t tag = Tag(hash);
    uint64_t b = Home(hash);
    for (uint64_t probe = 0; probe < buckets_.size(); ++probe, b = Next(b)) {
      const Bucket& bucket = buckets_[b];
      for (uint32_t match = bucket.Match(tag); match != 0; match &= match - 1) {
        const int slot = __builtin_ctz(match);
        if (KeyOf(rows_.Row(bucket.rows[slot])) == key) return {b, slot};
      }
      if (bucket.spilled == 0) break;
    }
    return {0, -1};
  }

  static void AddToIndex(uint64_t hash, uint32_t row_number, const Buckets* buckets) {
    const uint64_t mask = buckets->size() - 1;
    for (uint64_t b = (hash >> 8) & mask;; b = (b + 1) & mask) {
      Bucket& bucket = (*buckets)[b];
      if (const uint32_t empty = bucket.Match(0)) {
        const int slot = __builtin_ctz(empty);
        bucket.tags[slot] = Tag(hash);
        bucket.rows[slot] = row_number;
        return;
      }
      if (bucket.spilled != kSpilledForever) ++bucket.spilled;
    }
  }

  void Rehash(uint64_t bucket_count) {
    // Buckets are read in order and, but for what spills, written in order; the keys are anywhere.
    constexpr uint64_t kAhead = 4;  // buckets, of some ten keys each
    Buckets buckets(bucket_count);
    for (uint64_t b = 0; b < buckets_.size(); ++b) {
      if (b + kAhead < buckets_.size()) PrefetchKeys(buckets_[b + kAhead]);
      const Bucket& bucket = buckets_[b];
      for (int slot = 0; slot < kSlots; ++slot) {
        if (bucket.tags[slot] == 0) continue;
        AddToIndex(HashKey(KeyOf(rows_.Row(bucket.rows[slot]))), bucket.rows[slot], &buckets);
      }
    }
    buckets_ = std::move(buckets);
  }

  SPARSE_EMB_INLINE void PrefetchKeys(const Bucket& bucket) const {
    for (int slot = 0; slot < kSlots; ++slot) {
      if (bucket.tags[slot] != 0) __builtin_prefetch(rows_.Row(bucket.rows[slot]));
    }
  }

  bool IsFree(int64_t row) const {
    return row < static_cast<int64_t>(is_free_.size()) && is_free_[row];
  }

  Status CheckFreeRows() const {
    if (used_rows_ > rows_.Capacity() || static_cast<int64_t>(is_free_.size()) > used_rows_) {
      return Error(Code::kDataLoss, used_rows_, " rows were handed out of ", rows_.Capacity(),
                   ", and ", is_free_.size(), " have flags");
    }
    const int64_t flagged = std::count(is_free_.begin(), is_free_.end(), true);
    int64_t listed = 0, row = first_free_;
    for (; row != kNone && listed <= free_rows_; ++listed) {
      if (row < 0 || !IsFree(row)) {
        return Error(Code::kDataLoss, "the list of free rows has row ", row, ", which is not free");
      }
      row = KeyOf(rows_.Row(static_cast<uint32_t>(row)));
    }
    if (listed == free_rows_ && flagged == free_rows_) return {};
    return Error(Code::kDataLoss, free_rows_, " rows are free, but ", flagged,
                 " have the flag and ", listed > free_rows_ ? "more" : std::to_string(listed),
                 " are in the list");
  }

  // Each slot has another row, because the search for a row's key ends at one slot; so where there
  // are as many slots as rows in use, every row has its slot.
  Status CheckIndex() const {
    if ((buckets_.size() & (buckets_.size() - 1)) != 0) {
      return Error(Code::kDataLoss, "the index has ", buckets_.size(), " buckets");
    }
    std::vector<uint32_t> passed_by(buckets_.size());
    int64_t slots = 0;
    for (uint64_t b = 0; b < buckets_.size(); ++b) {
      for (int slot = 0; slot < kSlots; ++slot) {
        if (buckets_[b].tags[slot] == 0) continue;
        ++slots;
        const int64_t row = buckets_[b].rows[slot];
        if (row >= used_rows_ || IsFree(row)) {
          return Error(Code::kDataLoss, "the index has row ", row, ", which is not in use");
        }
        const int64_t key = KeyOf(rows_.Row(buckets_[b].rows[slot]));
        const uint64_t hash = HashKey(key);
        if (buckets_[b].tags[slot] != Tag(hash)) {
          return Error(Code::kDataLoss, "key ", key, " has the tag of another in the index");
        }
        const Place place = Search(key, hash);
        if (place.slot < 0) return Error(Code::kDataLoss, "key ", key, " is not found");
        if (place.bucket != b || place.slot != slot) {
          return Error(Code::kDataLoss, "key ", key, " is in the index twice");
        }
        for (uint64_t p = Home(hash); p != b; p = Next(p)) ++passed_by[p];
      }
    }
    if (slots != size_) {
      return Error(Code::kDataLoss, slots, " keys are in the index, but the size is ", size_);
    }
    for (uint64_t b = 0; b < buckets_.size(); ++b) {
      const uint32_t spilled = buckets_[b].spilled;
      if (spilled == passed_by[b] || spilled == kSpilledForever) continue;
      return Error(Code::kDataLoss, passed_by[b], " keys passed bucket ", b, " by, which counts ",
                   spilled);
    }
    return {};
  }

  std::shared_ptr<ChunkArena> arena_;
  RowChunks rows_;
  Buckets buckets_{0};
  // The free rows are a list: where a row has its key, a free one has the number of the next.
  int64_t first_free_ = kNone;
  int64_t free_rows_ = 0;
  std::vector<bool> is_free_;  // by row; shorter than the rows where the rest is in use
  int64_t used_rows_ = 0;      // rows ever handed out: those in use and the free ones
  int64_t size_ = 0;
};

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_SLAB_STORE_H_
