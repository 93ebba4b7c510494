#include "cc/lib/duplicate.h"

#include <algorithm>

#include "cc/lib/vector_ops.h"

namespace sparse_emb {
namespace {

constexpr int64_t kAhead = 8;

// Prefetches the row that comes kAhead values after n.
SPARSE_EMB_INLINE void PrefetchAhead(const float* rows, const int32_t* inverse, int64_t n,
                                     int64_t end, int64_t dim) {
  if (n + kAhead < end) PrefetchBytes(rows + inverse[n + kAhead] * dim, dim * sizeof(float));
}

int64_t CostPerBag(const Bags& bags, int64_t dim) {
  return 20 + bags.splits[bags.count] / std::max<int64_t>(bags.count, 1) * (4 + dim / 4);
}

}  // namespace

void GatherRows(const float* rows, const int32_t* inverse, int64_t n, int64_t dim, float* values,
                WorkerPool* pool) {
  pool->ParallelFor(n, 4 + dim / 4, [&](int64_t begin, int64_t end) {
    RunOnBestIsa(dim, [&](auto dim) SPARSE_EMB_INLINE_LAMBDA {
      for (int64_t i = begin; i < end; ++i) {
        PrefetchAhead(rows, inverse, i, end, dim);
        Copy(rows + inverse[i] * dim, values + i * dim, dim);
      }
    });
  });
}

void PoolRows(const float* rows, const int32_t* inverse, const Bags& bags, int64_t dim, float* out,
              WorkerPool* pool) {
  const int64_t total = bags.splits[bags.count];
  pool->ParallelFor(bags.count, CostPerBag(bags, dim), [&](int64_t begin, int64_t end) {
    RunOnBestIsa(dim, [&](auto dim) SPARSE_EMB_INLINE_LAMBDA {
      for (int64_t b = begin; b < end; ++b) {
        float* sum = out + b * dim;
        std::fill(sum, sum + dim, 0.0f);
        for (int64_t n = bags.splits[b]; n < bags.splits[b + 1]; ++n) {
          PrefetchAhead(rows, inverse, n, total, dim);
          const float* row = rows + inverse[n] * dim;
          if (bags.weights == nullptr) {
            Add(row, sum, dim);
          } else {
            AddScaled(bags.weights[n], row, sum, dim);
          }
        }
        if (bags.combiner != Combiner::kSum) Scale(bags.scale(b), sum, dim);
      }
    });
  });
}

void RowProducts(const float* rows, const int32_t* inverse, const Bags& bags, const float* grad,
                 int64_t dim, float* out, WorkerPool* pool) {
  const int64_t total = bags.splits[bags.count];
  pool->ParallelFor(bags.count, CostPerBag(bags, dim), [&](int64_t begin, int64_t end) {
    RunOnBestIsa(dim, [&](auto dim) SPARSE_EMB_INLINE_LAMBDA {
      for (int64_t b = begin; b < end; ++b) {
        for (int64_t n = bags.splits[b]; n < bags.splits[b + 1]; ++n) {
          PrefetchAhead(rows, inverse, n, total, dim);
          out[n] = Dot(rows + inverse[n] * dim, grad + b * dim, dim);
        }
      }
    });
  });
}

}  // namespace sparse_emb
