#include "cc/lib/duplicate.h"

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "cc/lib/vector_ops.h"

namespace sparse_emb {
namespace {

// Prefetches the row that comes some values of its feature after n: so far that it has time to come
// from another processor's cache, and for features side by side no further than the cache has room
// for the rows of all.
SPARSE_EMB_INLINE void PrefetchAhead(const float* rows, const int32_t* inverse, int64_t n,
                                     int64_t end, int64_t num_features, int64_t dim) {
  const int64_t ahead = n + (num_features == 1 ? 32 : 8);
  if (ahead < end) PrefetchBytes(rows + inverse[ahead] * dim, dim * sizeof(float));
}

int64_t CostPerBag(const Bags& bags, int64_t dim) {
  return 20 + bags.splits[bags.count] / std::max<int64_t>(bags.count, 1) * (4 + dim / 4);
}

}  // namespace

void GatherRows(const float* rows, const int32_t* inverse, int64_t n, int64_t dim,
                int64_t num_features, float* values, WorkerPool* pool) {
  const int64_t num_rows = n / num_features;
  pool->ParallelFor(num_rows, (4 + dim / 4) * num_features, [&](int64_t begin, int64_t end) {
    RunOnBestIsa(dim, [&](auto dim) SPARSE_EMB_INLINE_LAMBDA {
      // Row by row, so that what is written follows on: with blocks of 4 to 512 rows of a feature
      // it took up to 1.6 times as long.
      float* value = values + begin * num_features * dim;
      for (int64_t r = begin; r < end; ++r) {
        for (int64_t f = 0; f < num_features; ++f, value += dim) {
          const int64_t i = f * num_rows + r;
          PrefetchAhead(rows, inverse, i, (f + 1) * num_rows, num_features, dim);
          Copy(rows + inverse[i] * dim, value, dim);
        }
      }
    });
  });
}

void PoolRows(const float* rows, const int32_t* inverse, const Bags& bags, int64_t dim, float* out,
              WorkerPool* pool) {
  const int64_t total = bags.splits[bags.count];
  const int64_t num_features = bags.num_features;
  const int64_t cost = CostPerBag(bags, dim) * num_features;
  pool->ParallelFor(bags.rows(), cost, [&](int64_t begin, int64_t end) {
    RunOnBestIsa(dim, [&](auto dim) SPARSE_EMB_INLINE_LAMBDA {
      // The compiler keeps a sum in registers where it knows its width and that no row is there.
      constexpr bool in_registers = !std::is_same_v<decltype(dim), int64_t>;
      const auto pool_bag = [&](int64_t b, float* to) SPARSE_EMB_INLINE_LAMBDA {
        float registers[kWidestConstant];
        float* const sum = in_registers ? registers : to;
        for (int64_t d = 0; d < dim; ++d) sum[d] = 0.0f;
        for (int64_t n = bags.splits[b]; n < bags.splits[b + 1]; ++n) {
          PrefetchAhead(rows, inverse, n, total, bags.num_features, dim);
          const float* row = rows + inverse[n] * dim;
          if (bags.weights == nullptr) {
            Add(row, sum, dim);
          } else {
            AddScaled(bags.weights[n], row, sum, dim);
          }
        }
        if (bags.combiner != Combiner::kSum) Scale(bags.scale(b), sum, dim);
        if (in_registers) Copy(sum, to, dim);
      };
      for (int64_t r = begin; r < end; ++r) {
        for (int64_t f = 0; f < num_features; ++f) {
          pool_bag(f * bags.rows() + r, out + (r * num_features + f) * dim);
        }
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
        const float* bag_grad = grad + bags.offset(b, dim);
        for (int64_t n = bags.splits[b]; n < bags.splits[b + 1]; ++n) {
          PrefetchAhead(rows, inverse, n, total, bags.num_features, dim);
          out[n] = Dot(rows + inverse[n] * dim, bag_grad, dim);
        }
      }
    });
  });
}

}  // namespace sparse_emb
