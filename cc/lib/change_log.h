// Which rows of a table have changed since the last save that succeeded, for incremental saves.
//
// A log is a set of keys in two parts: `fresh`, which no save has seen, and `taken`, which a save
// has written that is not confirmed yet. Take moves all to `taken`, Confirm forgets those; a save
// that fails is not confirmed, and the next one writes its keys again. Costs 11 to 22 bytes for
// each key that has changed, and some nanoseconds for each that changes.
#ifndef TF_SPARSE_EMB_CC_LIB_CHANGE_LOG_H_
#define TF_SPARSE_EMB_CC_LIB_CHANGE_LOG_H_

#include <algorithm>
#include <cstdint>
#include <map>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include "cc/lib/hash.h"

namespace sparse_emb {

// A set of int64 by open addressing. Throws std::bad_alloc, having changed nothing but that some
// keys of the call may be in it.
class KeySet {
 public:
  int64_t size() const { return count_ + has_empty_; }

  void Insert(const int64_t* keys, int64_t n) {
    constexpr int64_t kAhead = 16;
    for (int64_t i = 0; i < n; ++i) {
      if (i + kAhead < n && !slots_.empty()) __builtin_prefetch(&slots_[SlotOf(keys[i + kAhead])]);
      if (keys[i] == kEmpty) {
        has_empty_ = true;
        continue;
      }
      if (count_ >= limit_) Grow();
      Put(keys[i]);
    }
  }

  void Insert(const KeySet& other) {
    std::vector<int64_t> keys;
    for (int64_t cursor = 0; other.Next(&cursor, 1 << 12, &keys);) Insert(keys.data(), keys.size());
  }

  // Up to `limit` keys, in an order that has nothing to do with that of a table's index: keys in
  // the order of their hashes would fill another index in clusters. *cursor is 0 at first; false
  // after the last key.
  bool Next(int64_t* cursor, int64_t limit, std::vector<int64_t>* keys) const {
    keys->clear();
    const int64_t end = slots_.size();
    for (; *cursor < end && static_cast<int64_t>(keys->size()) < limit; ++*cursor) {
      if (slots_[*cursor] != kEmpty) keys->push_back(slots_[*cursor]);
    }
    if (*cursor == end && static_cast<int64_t>(keys->size()) < limit) {
      if (has_empty_) keys->push_back(kEmpty);
      ++*cursor;
    }
    return !keys->empty();
  }

 private:
  static constexpr int64_t kEmpty = INT64_MIN;  // in a slot; the key of this value is has_empty_

  uint64_t SlotOf(int64_t key) const { return Mix64(static_cast<uint64_t>(key)) & mask_; }

  void Put(int64_t key) {
    uint64_t slot = SlotOf(key);
    while (slots_[slot] != kEmpty && slots_[slot] != key) slot = (slot + 1) & mask_;
    count_ += slots_[slot] == kEmpty;
    slots_[slot] = key;
  }

  void Grow() {
    const size_t size = std::max<size_t>(64, slots_.size() * 2);
    std::vector<int64_t> old(size, kEmpty);
    old.swap(slots_);
    mask_ = size - 1;
    limit_ = size / 4 * 3;
    count_ = 0;
    for (int64_t key : old) {
      if (key != kEmpty) Put(key);
    }
  }

  std::vector<int64_t> slots_;
  uint64_t mask_ = 0;
  int64_t count_ = 0, limit_ = 0;
  bool has_empty_ = false;
};

// Not thread-safe but for what its lock guards: a table adds to its logs while it has itself alone.
class ChangeLog {
 public:
  void Add(const int64_t* keys, int64_t n) {
    if (!fresh_.everything) fresh_.Try([&] { fresh_.keys.Insert(keys, n); });
  }

  // Says of every row, and of those that are gone, that it may have changed.
  void AddEverything() { fresh_.SetEverything(); }

  // What the next save must write.
  void Take() {
    if (fresh_.everything) taken_.SetEverything();
    if (!taken_.everything) {
      if (taken_.keys.size() < fresh_.keys.size()) std::swap(taken_.keys, fresh_.keys);
      taken_.Try([&] { taken_.keys.Insert(fresh_.keys); });
    }
    fresh_ = {};
  }
  const KeySet& taken() const { return taken_.keys; }
  bool everything() const { return fresh_.everything || taken_.everything; }

  // The greatest number of keys that Take would leave.
  int64_t MaxKeys() const { return fresh_.keys.size() + taken_.keys.size(); }

  // What was taken is saved.
  void Confirm() { taken_ = {}; }

  // Nothing has changed.
  void Reset() { fresh_ = taken_ = {}; }

  // For savers, who share the table.
  std::mutex& mutex() { return mutex_; }

 private:
  struct Part {
    KeySet keys;
    bool everything = false;

    void SetEverything() {
      keys = {};
      everything = true;
    }
    // Without memory for the keys, all may have changed.
    template <class Fn>
    void Try(const Fn& fn) {
      try {
        fn();
      } catch (const std::bad_alloc&) {
        SetEverything();
      }
    }
  };

  std::mutex mutex_;
  Part fresh_, taken_;
};

// The logs of a table, by number. A new one says that everything has changed: nothing is saved yet.
class ChangeLogs {
 public:
  int64_t Open() {
    logs_[++last_].AddEverything();
    return last_;
  }
  void Close(int64_t log) { logs_.erase(log); }
  // Null if there is none.
  ChangeLog* Find(int64_t log) {
    const auto found = logs_.find(log);
    return found == logs_.end() ? nullptr : &found->second;
  }

  void Add(const int64_t* keys, int64_t n) {
    for (auto& [number, log] : logs_) log.Add(keys, n);
  }
  void AddEverything() {
    for (auto& [number, log] : logs_) log.AddEverything();
  }

 private:
  std::map<int64_t, ChangeLog> logs_;
  int64_t last_ = 0;
};

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_CHANGE_LOG_H_
