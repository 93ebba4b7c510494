// The rows that the last lookup of a table found, for the update that follows it in a training step
// with the same keys: it need not search again.
//
// A memory, not a state: Take gives rows only to a caller who names the same keys while all rows
// are where they were, so whatever came in between, the result is that of a search.
#ifndef TF_SPARSE_EMB_CC_LIB_LAST_LOOKUP_H_
#define TF_SPARSE_EMB_CC_LIB_LAST_LOOKUP_H_

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

namespace sparse_emb {

// Thread-safe. `layout` is a number that the table changes whenever a row has moved or gone.
class LastLookup {
 public:
  // rows[i] is that of keys[i], or null where an update would pass it over. Without memory for the
  // keys nothing is kept.
  void Keep(const int64_t* keys, std::vector<float*> rows, int64_t layout) {
    const std::lock_guard lock(mutex_);
    layout_ = kNone;
    try {
      keys_.assign(keys, keys + rows.size());
    } catch (const std::bad_alloc&) {
      rows_.clear();
      return;
    }
    rows_ = std::move(rows);
    layout_ = layout;
  }

  // The rows of keys [n], once; false if they are not known.
  bool Take(const int64_t* keys, int64_t n, int64_t layout, std::vector<float*>* rows) {
    const std::lock_guard lock(mutex_);
    if (layout != layout_ || n != static_cast<int64_t>(rows_.size())) return false;
    if (!std::equal(keys_.begin(), keys_.end(), keys)) return false;
    rows->swap(rows_);
    rows_.clear();
    layout_ = kNone;
    return true;
  }

  // Calls fn(key, row) for what Take would give at this layout.
  template <class Fn>
  void ForEach(int64_t layout, const Fn& fn) const {
    const std::lock_guard lock(mutex_);
    if (layout != layout_) return;
    for (size_t i = 0; i < rows_.size(); ++i) fn(keys_[i], rows_[i]);
  }

 private:
  friend struct StorePeer;
  static constexpr int64_t kNone = -1;

  mutable std::mutex mutex_;
  std::vector<int64_t> keys_;
  std::vector<float*> rows_;
  int64_t layout_ = kNone;
};

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_LAST_LOOKUP_H_
