#include "cc/lib/partition.h"

#include <cstring>

namespace sparse_emb {

void TakeRows(const float* rows, const int32_t* positions, int64_t n, int64_t dim, float* part,
              WorkerPool* pool) {
  pool->ParallelFor(n, 10 + dim, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      std::memcpy(part + i * dim, rows + positions[i] * dim, dim * sizeof(float));
    }
  });
}

void PlaceRows(const float* part, const int32_t* positions, int64_t n, int64_t dim, float* rows,
               WorkerPool* pool) {
  pool->ParallelFor(n, 10 + dim, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      std::memcpy(rows + positions[i] * dim, part + i * dim, dim * sizeof(float));
    }
  });
}

}  // namespace sparse_emb
