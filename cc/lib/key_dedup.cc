#include "cc/lib/key_dedup.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "cc/lib/cpu_dispatch.h"

namespace sparse_emb {
namespace {

// Spreads keys over the slots of a batch, as evenly as HashKey for less work; different keys may
// have the same. (Without the second product, keys of one stride met each other.)
SPARSE_EMB_INLINE uint64_t HashInBatch(int64_t key) {
  __extension__ using Product = unsigned __int128;
  const Product product =
      Product{static_cast<uint64_t>(key) ^ 0x9e3779b97f4a7c15ull} * 0xbf58476d1ce4e5b9ull;
  const uint64_t folded = static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
  return (folded * 0x94d049bb133111ebull) >> 32;
}

// Numbers keys in order of first appearance. Open addressing over the numbers alone: 4 bytes a
// slot; the keys are those of `unique`.
//
// Whether a key is new is as good as random, and a processor that guesses wrong loses more than the
// work. So the common cases, a new key whose slot is free and a known key in its own slot, run
// through the same instructions; only a key that meets another one in its slot branches off, and
// the slots are many, to make that rare.
class KeyNumbering {
 public:
  // For n keys at most, of which some repeat. unique and counts need room for them.
  KeyNumbering(int64_t n, int64_t* unique, int32_t* counts) : unique_(unique), counts_(counts) {
    int64_t slots = 64;
    while (2 * slots < 3 * n && slots < kMaxFirstSlots) slots *= 2;
    slots_.assign(slots, kEmpty);
  }

  int64_t size() const { return size_; }

  // The numbers of keys [n]; counts[number] += amount(i). Calls on_found(size()) now and then: so
  // many unique keys stand.
  template <class Amount, class OnFound>
  void Number(const int64_t* keys, int64_t n, int32_t* numbers, const Amount& amount,
              const OnFound& on_found) {
    constexpr int64_t kBlock = 64;
    uint64_t hashes[kBlock];
    int64_t* const unique = unique_;
    int32_t* const counts = counts_;
    for (int64_t begin = 0; begin < n; begin += kBlock) {
      const int64_t count = std::min(kBlock, n - begin);
      if ((size_ + count) * kMinSlotsPerKey > static_cast<int64_t>(slots_.size())) Grow();
      const uint64_t mask = slots_.size() - 1;
      int32_t* const slots = slots_.data();
      for (int64_t j = 0; j < count; ++j) {
        hashes[j] = HashInBatch(keys[begin + j]);
        __builtin_prefetch(&slots[hashes[j] & mask]);
      }
      int32_t size = size_;  // a local one, because stores to unique may alias a member
      for (int64_t j = 0; j < count; ++j) {
        const int64_t key = keys[begin + j];
        // What is written at `size` stays without effect unless the key is new.
        unique[size] = key;
        counts[size] = 0;
        int32_t* slot = &slots[hashes[j] & mask];
        int32_t number = *slot;
        int32_t is_empty = number >> 31;  // all bits or none: kEmpty is the only negative
        number = (number & ~is_empty) | (size & is_empty);
        if (__builtin_expect(unique[number] != key, 0)) {
          slot = Probe(key, hashes[j] & mask);
          is_empty = *slot >> 31;
          number = (*slot & ~is_empty) | (size & is_empty);
        }
        *slot = number;
        size -= is_empty;
        counts[number] += amount(begin + j);
        numbers[begin + j] = number;
      }
      size_ = size;
      on_found(size);
    }
  }

 private:
  static constexpr int32_t kEmpty = -1;
  static constexpr int64_t kMaxFirstSlots = 1 << 20;
  static constexpr int64_t kMinSlotsPerKey = 2;

  // The slot of a key which is not in its own.
  int32_t* Probe(int64_t key, uint64_t slot) {
    const uint64_t mask = slots_.size() - 1;
    do slot = (slot + 1) & mask;
    while (slots_[slot] != kEmpty && unique_[slots_[slot]] != key);
    return &slots_[slot];
  }

  void Grow() {
    slots_.assign(slots_.size() * 4, kEmpty);
    const uint64_t mask = slots_.size() - 1;
    for (int64_t number = 0; number < size_; ++number) {
      uint64_t slot = HashInBatch(unique_[number]) & mask;
      while (slots_[slot] != kEmpty) slot = (slot + 1) & mask;
      slots_[slot] = static_cast<int32_t>(number);
    }
  }

  int64_t* const unique_;
  int32_t* const counts_;
  int32_t size_ = 0;
  std::vector<int32_t> slots_;
};

constexpr auto kOne = [](int64_t) { return 1; };
constexpr auto kNobodyWatches = [](int64_t) {};

int64_t DedupSerially(const int64_t* keys, int64_t n, int64_t* unique, int32_t* inverse,
                      int32_t* counts) {
  KeyNumbering numbering(n, unique, counts);
  numbering.Number(keys, n, inverse, kOne, kNobodyWatches);
  return numbering.size();
}

int64_t Parts(int64_t n, const WorkerPool& pool) {
  constexpr int64_t kMinPart = 16384;
  constexpr int64_t kMinParts = 4;  // numbering the parts' unique keys again eats what fewer gain
  const int64_t parts = std::min<int64_t>(pool.num_threads(), n / kMinPart);
  return parts < kMinParts ? 1 : parts;
}

}  // namespace

bool DedupsInParallel(int64_t n, const WorkerPool& pool) { return Parts(n, pool) > 1; }

int64_t DedupKeysInSight(const int64_t* keys, int64_t n, int64_t* unique, int32_t* inverse,
                         int32_t* counts, std::atomic<int64_t>* found) {
  KeyNumbering numbering(n, unique, counts);
  numbering.Number(keys, n, inverse, kOne,
                   [found](int64_t size) { found->store(size, std::memory_order_release); });
  return numbering.size();
}

int64_t DedupKeys(const int64_t* keys, int64_t n, int64_t* unique, int32_t* inverse,
                  int32_t* counts, WorkerPool* pool) {
  const int64_t parts = Parts(n, *pool);
  if (parts == 1) return DedupSerially(keys, n, unique, inverse, counts);

  // Each thread numbers a part of the keys by itself. The unique keys of all parts but the first
  // are then numbered again, after those of the first, which keeps the order of first occurrence;
  // and the numbers of those parts are translated. (What is written before it is read needs no
  // zeros, which would take as long as the threads save.)
  const auto begin_of = [&](int64_t part) { return n * part / parts; };
  const int64_t first_end = begin_of(1);
  const std::unique_ptr<int64_t[]> part_unique(new int64_t[n - first_end]);
  const std::unique_ptr<int32_t[]> part_counts(new int32_t[n - first_end]);
  const std::unique_ptr<int32_t[]> translation(new int32_t[n - first_end]);
  std::vector<int64_t> part_size(parts);
  KeyNumbering numbering(n, unique, counts);
  pool->ParallelFor(parts, n / parts * 10, [&](int64_t first, int64_t last) {
    for (int64_t part = first; part < last; ++part) {
      const int64_t begin = begin_of(part), count = begin_of(part + 1) - begin;
      if (part == 0) {
        numbering.Number(keys, count, inverse, kOne, kNobodyWatches);
      } else {
        const int64_t at = begin - first_end;
        part_size[part] =
            DedupSerially(keys + begin, count, &part_unique[at], inverse + begin, &part_counts[at]);
      }
    }
  });
  for (int64_t part = 1; part < parts; ++part) {
    const int64_t at = begin_of(part) - first_end;
    numbering.Number(
        &part_unique[at], part_size[part], &translation[at],
        [from = &part_counts[at]](int64_t j) { return from[j]; }, kNobodyWatches);
  }
  pool->ParallelFor(n - first_end, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = 1; part < parts; ++part) {
      const int32_t* const to = &translation[begin_of(part) - first_end];
      const int64_t from = std::max(begin + first_end, begin_of(part));
      const int64_t until = std::min(end + first_end, begin_of(part + 1));
      for (int64_t i = from; i < until; ++i) inverse[i] = to[inverse[i]];
    }
  });
  return numbering.size();
}

int64_t DedupKeysByTable(const int64_t* keys, const int64_t* feature_splits, const int64_t* tables,
                         int64_t num_features, int64_t num_tables, int64_t* unique,
                         int32_t* inverse, int32_t* counts, int64_t* table_splits,
                         WorkerPool* pool) {
  const int64_t n = feature_splits[num_features];
  if (num_tables == 1) {
    table_splits[0] = 0;
    return table_splits[1] = DedupKeys(keys, n, unique, inverse, counts, pool);
  }
  // Table t dedups into the part of `unique` and `counts` that begins at part[t], which has room
  // for all its keys; then the parts are moved together.
  std::vector<int64_t> part(num_tables + 1), size(num_tables);
  for (int64_t f = 0; f < num_features; ++f) {
    part[tables[f] + 1] += feature_splits[f + 1] - feature_splits[f];
  }
  for (int64_t t = 0; t < num_tables; ++t) part[t + 1] += part[t];
  pool->ParallelFor(num_tables, n / num_tables * 10, [&](int64_t begin, int64_t end) {
    SerialPool serial;
    std::vector<int64_t> table_keys;
    std::vector<int32_t> table_inverse;
    for (int64_t t = begin; t < end; ++t) {
      table_keys.clear();
      for (int64_t f = 0; f < num_features; ++f) {
        if (tables[f] != t) continue;
        table_keys.insert(table_keys.end(), keys + feature_splits[f], keys + feature_splits[f + 1]);
      }
      table_inverse.resize(table_keys.size());
      size[t] = DedupKeys(table_keys.data(), table_keys.size(), unique + part[t],
                          table_inverse.data(), counts + part[t], &serial);
      const int32_t* from = table_inverse.data();
      for (int64_t f = 0; f < num_features; ++f) {
        if (tables[f] != t) continue;
        const int64_t count = feature_splits[f + 1] - feature_splits[f];
        std::copy(from, from + count, inverse + feature_splits[f]);
        from += count;
      }
    }
  });
  table_splits[0] = 0;
  for (int64_t t = 0; t < num_tables; ++t) {
    std::copy(unique + part[t], unique + part[t] + size[t], unique + table_splits[t]);
    std::copy(counts + part[t], counts + part[t] + size[t], counts + table_splits[t]);
    table_splits[t + 1] = table_splits[t] + size[t];
  }
  for (int64_t f = 0; f < num_features; ++f) {
    const int32_t first = static_cast<int32_t>(table_splits[tables[f]]);
    if (first == 0) continue;
    for (int64_t i = feature_splits[f]; i < feature_splits[f + 1]; ++i) inverse[i] += first;
  }
  return table_splits[num_tables];
}

}  // namespace sparse_emb
