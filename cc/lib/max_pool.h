// Max-pooling of rows into bags, element by element, and its gradient.
//
//   out[b, d]    = max_{n in bag b} rows[inverse[n], d]
//   argmax[b, d] = inverse[n] of the first n that has it
//
// An empty bag is zeros, its argmax -1. A NaN counts as the greatest.
#ifndef TF_SPARSE_EMB_CC_LIB_MAX_POOL_H_
#define TF_SPARSE_EMB_CC_LIB_MAX_POOL_H_

#include <cstdint>

#include "cc/lib/worker_pool.h"

namespace sparse_emb {

// rows [U, D], inverse [N], splits [num_bags + 1] from 0 to N -> out and argmax [num_bags, D].
void MaxPoolRows(const float* rows, const int32_t* inverse, const int64_t* splits, int64_t num_bags,
                 int64_t dim, float* out, int32_t* argmax, WorkerPool* pool);

// grad [num_bags, D], argmax -> out [num_unique, D]: out[u, d] = the sum of grad[b, d] over the
// bags whose argmax[b, d] is u, in order.
void ReduceMaxPooledGrads(const float* grad, const int32_t* argmax, int64_t num_bags,
                          int64_t num_unique, int64_t dim, float* out);

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_MAX_POOL_H_
