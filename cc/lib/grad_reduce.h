// EmbeddingGradReduce: the gradient summed per unique key, the transpose of EmbeddingDuplicate.
//
//   gather:  out[u] = sum_{n: inverse[n] == u} grad of n
//   pooled:  out[u] = sum_{n: inverse[n] == u} c[n] grad of n's bag     (c, F: duplicate.h)
//
// The sums are taken in order of n, whatever the number of threads. A u that inverse does not name
// is zeros.
#ifndef TF_SPARSE_EMB_CC_LIB_GRAD_REDUCE_H_
#define TF_SPARSE_EMB_CC_LIB_GRAD_REDUCE_H_

#include <cstdint>
#include <vector>

#include "cc/lib/duplicate.h"
#include "cc/lib/worker_pool.h"

namespace sparse_emb {

// grad [n / F, F D], inverse [n] -> out [num_unique, D].
void ReduceGrads(const float* grad, const int32_t* inverse, int64_t n, int64_t num_unique,
                 int64_t dim, int64_t num_features, float* out, WorkerPool* pool);

// grad [B / F, F D], inverse [N] -> out [num_unique, D].
void ReducePooledGrads(const float* grad, const int32_t* inverse, const Bags& bags,
                       int64_t num_unique, int64_t dim, float* out, WorkerPool* pool);

// The same for gradients of several tables: those of table t are grads[t] [n_t, D], n_t = splits[t
// + 1] - splits[t], and add up in the rows from unique_splits[t] on, to which inverse [n] points.
void ReduceGradsByTable(const std::vector<const float*>& grads, const int64_t* splits,
                        const int32_t* inverse, const int64_t* unique_splits, int64_t dim,
                        float* out, WorkerPool* pool);

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_GRAD_REDUCE_H_
