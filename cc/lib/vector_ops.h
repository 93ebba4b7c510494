// Arithmetic on the elements of a row, for use inside RunOnBestIsa.
//
// A sum over a row is taken in kLanes partial sums, element d in sum d mod kLanes, and the partial
// sums are folded by halves: an order that every instruction set can follow, so all give the same
// bits.
#ifndef TF_SPARSE_EMB_CC_LIB_VECTOR_OPS_H_
#define TF_SPARSE_EMB_CC_LIB_VECTOR_OPS_H_

#include <cstdint>
#include <cstring>

#include "cc/lib/cpu_dispatch.h"

namespace sparse_emb {

inline constexpr int kLanes = 16;

SPARSE_EMB_INLINE float FoldLanes(float* lanes) {
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}

// sum_d x[d] y[d]
SPARSE_EMB_INLINE float Dot(const float* x, const float* y, int64_t dim) {
  float lanes[kLanes] = {};
  int64_t d = 0;
  for (; d + kLanes <= dim; d += kLanes) {
    for (int i = 0; i < kLanes; ++i) lanes[i] += x[d + i] * y[d + i];
  }
  for (int i = 0; d + i < dim; ++i) lanes[i] += x[d + i] * y[d + i];
  return FoldLanes(lanes);
}

// y += x
SPARSE_EMB_INLINE void Add(const float* x, float* y, int64_t dim) {
  for (int64_t d = 0; d < dim; ++d) y[d] += x[d];
}

// y += a x
SPARSE_EMB_INLINE void AddScaled(float a, const float* x, float* y, int64_t dim) {
  for (int64_t d = 0; d < dim; ++d) y[d] += a * x[d];
}

// y *= a
SPARSE_EMB_INLINE void Scale(float a, float* y, int64_t dim) {
  for (int64_t d = 0; d < dim; ++d) y[d] *= a;
}

// y = x. A loop, because a call of memcpy costs more than a row.
SPARSE_EMB_INLINE void Copy(const float* x, float* y, int64_t dim) {
  for (int64_t d = 0; d < dim; ++d) y[d] = x[d];
}

// Brings the `bytes` at p into the cache.
SPARSE_EMB_INLINE void PrefetchBytes(const void* p, int64_t bytes) {
  const char* c = static_cast<const char*>(p);
  for (int64_t b = 0; b < bytes; b += 64) __builtin_prefetch(c + b);
  __builtin_prefetch(c + bytes - 1);
}

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_VECTOR_OPS_H_
