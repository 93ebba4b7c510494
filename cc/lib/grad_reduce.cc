#include "cc/lib/grad_reduce.h"

#include <algorithm>

#include "cc/lib/vector_ops.h"

namespace sparse_emb {
namespace {

// Unique rows are dealt to the threads in blocks, so that each sum has one thread, which reads the
// gradients in order. Blocks of 16 keep threads out of each other's cache lines; dealing them like
// cards spreads the hot keys, which have the low numbers. Two threads measured slower than one:
// each asks for every other gradient, and the processor seems to fetch those in between as well.
constexpr int64_t kBlockRows = 16;
constexpr int64_t kMinOwners = 4;

template <class Fn>
void ForEachOwner(int64_t n, int64_t num_unique, int64_t dim, WorkerPool* pool, const Fn& fn) {
  const int64_t blocks = (num_unique + kBlockRows - 1) / kBlockRows;
  const int64_t most = n * dim < 1 << 14 ? 1 : std::min<int64_t>(pool->num_threads(), blocks);
  int64_t owners = 1;  // a power of two, so that ownership is a mask
  while (most >= kMinOwners && owners * 2 <= most) owners *= 2;
  pool->ParallelFor(owners, n * (2 + dim / 4) / owners, [&](int64_t begin, int64_t end) {
    for (int64_t owner = begin; owner < end; ++owner) fn(owner, owners);
  });
}

// Calls fn(i) for those i in [begin, end), ascending, whose row inverse[i] belongs to `owner`, and
// a little earlier prefetch(i). Which rows are owned is as good as random, so they are picked out
// without a branch first.
template <class Prefetch, class Fn>
SPARSE_EMB_INLINE void ForEachOwned(const int32_t* inverse, int64_t begin, int64_t end,
                                    int64_t owner, int64_t owners, const Prefetch& prefetch,
                                    const Fn& fn) {
  constexpr int64_t kPart = 512;
  constexpr int64_t kAhead = 8;
  int64_t owned[kPart];
  for (int64_t part = begin; part < end; part += kPart) {
    const int64_t stop = std::min(end, part + kPart);
    int64_t count = 0;
    for (int64_t i = part; i < stop; ++i) {
      owned[count] = i;
      count += ((inverse[i] / kBlockRows) & (owners - 1)) == owner;
    }
    for (int64_t j = 0; j < count; ++j) {
      if (j + kAhead < count) prefetch(owned[j + kAhead]);
      fn(owned[j]);
    }
  }
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
    RunOnBestIsa(dim, [&](auto dim) SPARSE_EMB_INLINE_LAMBDA {
      const int64_t row_bytes = dim * sizeof(float);
      ForEachOwned(
          inverse, 0, n, owner, owners,
          [&](int64_t i) SPARSE_EMB_INLINE_LAMBDA {
            PrefetchBytes(grad + i * dim, row_bytes);
            PrefetchBytes(out + inverse[i] * dim, row_bytes);
          },
          [&](int64_t i)
              SPARSE_EMB_INLINE_LAMBDA { Add(grad + i * dim, out + inverse[i] * dim, dim); });
    });
  });
}

void ReducePooledGrads(const float* grad, const int32_t* inverse, const Bags& bags,
                       int64_t num_unique, int64_t dim, float* out, WorkerPool* pool) {
  ForEachOwner(bags.splits[bags.count], num_unique, dim, pool, [&](int64_t owner, int64_t owners) {
    ZeroOwnedRows(owner, owners, num_unique, dim, out);
    RunOnBestIsa(dim, [&](auto dim) SPARSE_EMB_INLINE_LAMBDA {
      for (int64_t b = 0; b < bags.count; ++b) {
        const float scale = bags.scale(b);
        ForEachOwned(
            inverse, bags.splits[b], bags.splits[b + 1], owner, owners,
            [&](int64_t i) SPARSE_EMB_INLINE_LAMBDA {
              PrefetchBytes(out + inverse[i] * dim, dim * sizeof(float));
            },
            [&](int64_t i) SPARSE_EMB_INLINE_LAMBDA {
              AddScaled(bags.weight(i) * scale, grad + b * dim, out + inverse[i] * dim, dim);
            });
      }
    });
  });
}

void ReduceGradsByTable(const std::vector<const float*>& grads, const int64_t* splits,
                        const int32_t* inverse, const int64_t* unique_splits, int64_t dim,
                        float* out, WorkerPool* pool) {
  const int64_t num_tables = static_cast<int64_t>(grads.size());
  if (num_tables == 1) {
    return ReduceGrads(grads[0], inverse, splits[1], unique_splits[1], dim, out, pool);
  }
  const int64_t cost = splits[num_tables] / num_tables * (2 + dim / 4);
  pool->ParallelFor(num_tables, cost, [&](int64_t begin, int64_t end) {
    SerialPool serial;
    std::vector<int32_t> table_inverse;
    for (int64_t t = begin; t < end; ++t) {
      const int64_t first = unique_splits[t];
      const int64_t num_unique = unique_splits[t + 1] - first;
      const int64_t n = splits[t + 1] - splits[t];
      if (num_unique == n) {  // no key comes twice, so each gradient is its own sum
        std::copy(grads[t], grads[t] + n * dim, out + first * dim);
        continue;
      }
      table_inverse.assign(inverse + splits[t], inverse + splits[t + 1]);
      for (int32_t& u : table_inverse) u -= static_cast<int32_t>(first);
      ReduceGrads(grads[t], table_inverse.data(), n, num_unique, dim, out + first * dim, &serial);
    }
  });
}

}  // namespace sparse_emb
