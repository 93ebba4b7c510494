// What Export gives and Restore takes.
#ifndef TF_SPARSE_EMB_TESTS_CC_TABLE_CONTENT_H_
#define TF_SPARSE_EMB_TESTS_CC_TABLE_CONTENT_H_

#include <map>
#include <string>
#include <vector>

#include "cc/lib/store.h"
#include "cc/lib/table.h"
#include "tests/cc/testing.h"

namespace sparse_emb {
namespace testing {

using Rows = std::map<int64_t, std::vector<float>>;
using Counts = std::map<int64_t, std::vector<double>>;

template <class T>
void ExpectSameByKey(const std::map<int64_t, std::vector<T>>& got,
                     const std::map<int64_t, std::vector<T>>& want) {
  EXPECT_EQ(got.size(), want.size());
  for (auto g = got.begin(), w = want.begin(); g != got.end() && w != want.end(); ++g, ++w) {
    SCOPED_TRACE("key ", w->first);
    EXPECT_EQ(g->first, w->first);
    EXPECT_EQ(g->second, w->second);
  }
}

inline void ExpectSameRows(const Rows& got, const Rows& want) { ExpectSameByKey(got, want); }

// The content of a table, or a part of it, in the storage's order.
struct Content {
  std::vector<int64_t> keys;
  std::vector<float> rows;     // [n, width]
  std::vector<double> counts;  // [n, num_counts], or none
  int64_t width = 0;
  int64_t num_counts = 0;
  std::string rule;

  int64_t size() const { return static_cast<int64_t>(keys.size()); }

  TableRows view() {
    return {keys.data(), rows.data(), counts.empty() ? nullptr : counts.data(), size(), width};
  }

  // By key. Fails where a key comes twice.
  Rows RowsByKey() const { return ByKey(rows, width); }
  Counts CountsByKey() const { return ByKey(counts, counts.empty() ? 0 : num_counts); }

 private:
  template <class T>
  std::map<int64_t, std::vector<T>> ByKey(const std::vector<T>& values, int64_t w) const {
    std::map<int64_t, std::vector<T>> result;
    for (int64_t i = 0; i < size(); ++i) {
      result[keys[i]].assign(values.begin() + i * w, values.begin() + (i + 1) * w);
    }
    EXPECT_EQ(static_cast<int64_t>(result.size()), size());
    return result;
  }
};

inline void ExpectSameContent(const Content& got, const Content& want) {
  EXPECT_EQ(got.rule, want.rule);
  EXPECT_EQ(got.width, want.width);
  ExpectSameByKey(got.RowsByKey(), want.RowsByKey());
  ExpectSameByKey(got.CountsByKey(), want.CountsByKey());
}

// Appends what one call of Export gives and returns the next cursor.
inline int64_t ExportPart(Table* table, bool with_state, int64_t cursor, int64_t limit,
                          Content* to) {
  int64_t next = -7;
  EXPECT_OK(table->Export(
      with_state, cursor, limit,
      [&](int64_t n, int64_t width) {
        const int64_t size = to->size();
        to->width = width;
        to->num_counts = table->options().key_counts.width;
        to->keys.resize(size + n);
        to->rows.resize((size + n) * width);
        to->counts.resize((size + n) * to->num_counts);
        return TableRows{to->keys.data() + size, to->rows.data() + size * width,
                         to->counts.data() + size * to->num_counts, n, width};
      },
      &to->rule, &next));
  EXPECT_TRUE(next == -1 || next > cursor);
  return next;
}

inline Content ExportAll(Table* table, bool with_state) {
  Content content;
  EXPECT_EQ(ExportPart(table, with_state, 0, kNoLimit, &content), -1);
  return content;
}

// All rows of the table, by key. Fails where a key comes twice.
inline Rows ExportRows(Table* table, bool with_state) {
  return ExportAll(table, with_state).RowsByKey();
}

}  // namespace testing
}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_TESTS_CC_TABLE_CONTENT_H_
