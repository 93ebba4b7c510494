#include "cc/lib/max_pool.h"

#include <algorithm>
#include <cmath>

#include "cc/lib/vector_ops.h"

namespace sparse_emb {

void MaxPoolRows(const float* rows, const int32_t* inverse, const int64_t* splits, int64_t num_bags,
                 int64_t dim, float* out, int32_t* argmax, WorkerPool* pool) {
  const int64_t cost = 20 + splits[num_bags] / std::max<int64_t>(num_bags, 1) * (4 + dim / 2);
  pool->ParallelFor(num_bags, cost, [&](int64_t begin, int64_t end) {
    RunOnBestIsa(dim, [&](auto dim) SPARSE_EMB_INLINE_LAMBDA {
      for (int64_t b = begin; b < end; ++b) {
        float* best = out + b * dim;
        int32_t* best_row = argmax + b * dim;
        if (splits[b] == splits[b + 1]) {
          std::fill(best, best + dim, 0.0f);
          std::fill(best_row, best_row + dim, -1);
          continue;
        }
        Copy(rows + inverse[splits[b]] * dim, best, dim);
        std::fill(best_row, best_row + dim, inverse[splits[b]]);
        for (int64_t n = splits[b] + 1; n < splits[b + 1]; ++n) {
          const float* row = rows + inverse[n] * dim;
          for (int64_t d = 0; d < dim; ++d) {
            const bool greater = row[d] > best[d] || (row[d] != row[d] && best[d] == best[d]);
            best[d] = greater ? row[d] : best[d];
            best_row[d] = greater ? inverse[n] : best_row[d];
          }
        }
      }
    });
  });
}

void ReduceMaxPooledGrads(const float* grad, const int32_t* argmax, int64_t num_bags,
                          int64_t num_unique, int64_t dim, float* out) {
  std::fill(out, out + num_unique * dim, 0.0f);
  for (int64_t b = 0; b < num_bags; ++b) {
    for (int64_t d = 0; d < dim; ++d) {
      const int64_t u = argmax[b * dim + d];
      if (u >= 0) out[u * dim + d] += grad[b * dim + d];
    }
  }
}

}  // namespace sparse_emb
