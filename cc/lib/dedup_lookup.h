// The dedup of a batch and the lookup of its unique keys in one: while one thread numbers the keys,
// at which no other can help it (key_dedup.cc), the others read the rows of the keys that it has
// found.
#ifndef TF_SPARSE_EMB_CC_LIB_DEDUP_LOOKUP_H_
#define TF_SPARSE_EMB_CC_LIB_DEDUP_LOOKUP_H_

#include <cstdint>
#include <functional>

#include "cc/lib/status.h"
#include "cc/lib/table.h"
#include "cc/lib/worker_pool.h"

namespace sparse_emb {

// Where the outputs of DedupKeys go, with room for n each.
struct UniqueOut {
  int64_t* keys;
  int32_t* inverse;
  int32_t* counts;
};

// Room for the first rows that are read, [size, D].
struct RowsAhead {
  float* rows;
  int64_t size;
};

//   U = DedupKeys(keys, n, unique...)
//   return table->Lookup(unique.keys, U, insert, missing, rows(U))
//
// rows(U) is called once, when U is known, and says where the rows go: `ahead` if they fit there,
// or another place, to which what was read ahead is copied; null: nowhere, and nothing is looked
// up.
Status DedupLookup(const int64_t* keys, int64_t n, const UniqueOut& unique, Table* table,
                   bool insert, Missing missing, const RowsAhead& ahead,
                   const std::function<float*(int64_t num_unique)>& rows, WorkerPool* pool);

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_DEDUP_LOOKUP_H_
