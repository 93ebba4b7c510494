// EmbeddingDuplicate: undoes the dedup, by a gather, or pooled into bags without building [N, D].
//
//   gather:  values[n] = rows[inverse[n]]
//   pooled:  out[b]    = sum_{n in bag b} c[n] rows[inverse[n]]
//
// Bag b is [splits[b], splits[b + 1]). With weights w (all 1 where there are none) c[n] is
//
//   sum: w[n]      mean: w[n] / sum_bag(w)      sqrtn: w[n] / sqrt(sum_bag(w^2))
//
// and 0 where the divisor is 0. An empty bag is zeros.
//
// The values of F features may stand side by side: of B bags (or, for a gather, N keys) the first
// B / F are those of the first feature, and so on, and bag b = f B / F + r has its value at out[r,
// f D .. (f + 1) D) of out [B / F, F D].
#ifndef TF_SPARSE_EMB_CC_LIB_DUPLICATE_H_
#define TF_SPARSE_EMB_CC_LIB_DUPLICATE_H_

#include <cmath>
#include <cstdint>

#include "cc/lib/worker_pool.h"

namespace sparse_emb {

enum class Combiner { kSum, kMean, kSqrtN };

// How N values are pooled into B bags.
struct Bags {
  const int64_t* splits;  // [B + 1], from 0 to N, ascending
  int64_t count;          // B
  const float* weights;   // [N] or null
  Combiner combiner;
  int64_t num_features = 1;  // F, a divisor of B

  int64_t rows() const { return count / num_features; }  // of the values

  // Where the value of bag b begins.
  int64_t offset(int64_t b, int64_t dim) const {
    return (b % rows() * num_features + b / rows()) * dim;
  }

  float weight(int64_t n) const { return weights == nullptr ? 1.0f : weights[n]; }

  // 1 / the combiner's divisor for bag b, or 0 where that is 0: c[n] = weight(n) * scale(b).
  float scale(int64_t b) const {
    if (combiner == Combiner::kSum) return 1.0f;
    float sum = 0.0f;
    if (weights == nullptr) {
      sum = static_cast<float>(splits[b + 1] - splits[b]);
    } else if (combiner == Combiner::kMean) {
      for (int64_t n = splits[b]; n < splits[b + 1]; ++n) sum += weights[n];
    } else {
      for (int64_t n = splits[b]; n < splits[b + 1]; ++n) sum += weights[n] * weights[n];
    }
    const float divisor = combiner == Combiner::kMean ? sum : std::sqrt(sum);
    return divisor == 0.0f ? 0.0f : 1.0f / divisor;
  }
};

// values [n / F, F D] = rows [U, D] at inverse [n].
void GatherRows(const float* rows, const int32_t* inverse, int64_t n, int64_t dim,
                int64_t num_features, float* values, WorkerPool* pool);

// out [B / F, F D].
void PoolRows(const float* rows, const int32_t* inverse, const Bags& bags, int64_t dim, float* out,
              WorkerPool* pool);

// out[n] = <rows[inverse[n]], grad of b> for n in bag b, grad [B / F, F D]: the derivative of
// sum-pooling by w[n].
void RowProducts(const float* rows, const int32_t* inverse, const Bags& bags, const float* grad,
                 int64_t dim, float* out, WorkerPool* pool);

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_DUPLICATE_H_
