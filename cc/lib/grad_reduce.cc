#include "cc/lib/grad_reduce.h"

#include <algorithm>

#include "cc/lib/vector_ops.h"

namespace sparse_emb {
namespace {

// Unique rows are dealt to the threads in blocks, so that each sum has one thread, which reads the
// gradients in order. Blocks of 16 keep threads out of each other's cache lines; dealing them like
// cards spreads the hot keys, which have the low numbers.
constexpr int64_t kBlockRows = 16;

template <class Fn>
void ForEachOwner(int64_t n, int64_t num_unique, int64_t dim, WorkerPool* pool, const Fn& fn) {
  const int64_t blocks = (num_unique + kBlockRows - 1) / kBlockRows;
  const bool small = n * dim < 1 << 14;
  int64_t owners = 1;  // a power of two, so that ownership is a mask
  if (!small) {
    while (owners * 2 <= std::min<int64_t>(pool->num_threads(), blocks)) owners *= 2;
  }
  pool->ParallelFor(owners, n * (2 + dim / 4) / owners, [&](int64_t begin, int64_t end) {
    for (int64_t owner = begin; owner < end; ++owner) fn(owner, owners);
  });
}

SPARSE_EMB_INLINE bool Owns(int64_t owner, int64_t owners, int64_t u) {
  return ((u / kBlockRows) & (owners - 1)) == owner;
}

void ZeroOwnedRows(int64_t owner, int64_t owners, int64_t num_unique, int64_t dim, float* out) {
  for (int64_t u = owner * kBlockRows; u < num_unique; u += owners * kBlockRows) {
    const int64_t stop = std::min(num_unique, u + kBlockRows);
    std::fill(out + u * dim, out + stop * dim, 0.0f);
  }
}

}  // namespace

void ReduceGrads(const float* grad, const int32_t* inverse, int64_t n, int64_t num_unique,
                 int64_t dim, float* out, WorkerPool* pool) {
  ForEachOwner(n, num_unique, dim, pool, [&](int64_t owner, int64_t owners) {
    ZeroOwnedRows(owner, owners, num_unique, dim, out);
    RunOnBestIsa([&]() SPARSE_EMB_INLINE_LAMBDA {
      for (int64_t i = 0; i < n; ++i) {
        const int64_t u = inverse[i];
        if (Owns(owner, owners, u)) Add(grad + i * dim, out + u * dim, dim);
      }
    });
  });
}

void ReducePooledGrads(const float* grad, const int32_t* inverse, const Bags& bags,
                       int64_t num_unique, int64_t dim, float* out, WorkerPool* pool) {
  const int64_t total = bags.splits[bags.count];
  ForEachOwner(total, num_unique, dim, pool, [&](int64_t owner, int64_t owners) {
    ZeroOwnedRows(owner, owners, num_unique, dim, out);
    RunOnBestIsa([&]() SPARSE_EMB_INLINE_LAMBDA {
      for (int64_t b = 0; b < bags.count; ++b) {
        const float scale = bags.scale(b);
        for (int64_t i = bags.splits[b]; i < bags.splits[b + 1]; ++i) {
          const int64_t u = inverse[i];
          if (!Owns(owner, owners, u)) continue;
          AddScaled(bags.weight(i) * scale, grad + b * dim, out + u * dim, dim);
        }
      }
    });
  });
}

}  // namespace sparse_emb
