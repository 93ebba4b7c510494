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

// As many elements at once. The compiler cuts it up for narrower registers; loops over 16 or 32
// floats it tends to make into as many scalars, __restrict or not, once it has unrolled them.
using Lanes = float __attribute__((vector_size(kLanes * sizeof(float))));

// Calls fn(x, &y) on Lanes of x and y, and on what is left one by one; writes y back.
template <class Fn>
SPARSE_EMB_INLINE void ForLanes(const float* __restrict x, float* __restrict y, int64_t dim,
                                const Fn& fn) {
  int64_t d = 0;
  for (; d + kLanes <= dim; d += kLanes) {
    Lanes a, b;
    std::memcpy(&a, x + d, sizeof(a));
    std::memcpy(&b, y + d, sizeof(b));
    fn(a, &b);
    std::memcpy(y + d, &b, sizeof(b));
  }
  for (; d < dim; ++d) fn(x[d], &y[d]);
}

// Loops of constant length, which the compiler makes a few instructions of.
SPARSE_EMB_INLINE float FoldLanes(float* lanes) {
  static_assert(kLanes == 16, "folded by halves");
  for (int i = 0; i < 8; ++i) lanes[i] += lanes[i + 8];
  for (int i = 0; i < 4; ++i) lanes[i] += lanes[i + 4];
  for (int i = 0; i < 2; ++i) lanes[i] += lanes[i + 2];
  return lanes[0] + lanes[1];
}

// sum_d x[d] y[d]
SPARSE_EMB_INLINE float Dot(const float* x, const float* y, int64_t dim) {
  Lanes sums = {};
  int64_t d = 0;
  for (; d + kLanes <= dim; d += kLanes) {
    Lanes a, b;
    std::memcpy(&a, x + d, sizeof(a));
    std::memcpy(&b, y + d, sizeof(b));
    sums += a * b;
  }
  float lanes[kLanes];
  std::memcpy(lanes, &sums, sizeof(lanes));
  for (int i = 0; d + i < dim; ++i) lanes[i] += x[d + i] * y[d + i];
  return FoldLanes(lanes);
}

// y += x
SPARSE_EMB_INLINE void Add(const float* x, float* y, int64_t dim) {
  ForLanes(x, y, dim, [](const auto& a, auto* b) SPARSE_EMB_INLINE_LAMBDA { *b += a; });
}

// y += scale x
SPARSE_EMB_INLINE void AddScaled(float scale, const float* x, float* y, int64_t dim) {
  ForLanes(x, y, dim,
           [scale](const auto& a, auto* b) SPARSE_EMB_INLINE_LAMBDA { *b += scale * a; });
}

// y *= a
SPARSE_EMB_INLINE void Scale(float a, float* y, int64_t dim) {
  for (int64_t d = 0; d < dim; ++d) y[d] *= a;
}

// y = x. A loop, because a call of memcpy costs more than a row.
SPARSE_EMB_INLINE void Copy(const float* __restrict x, float* __restrict y, int64_t dim) {
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
