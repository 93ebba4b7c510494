// Whether keys are in the range of an array-indexed table.
#ifndef TF_SPARSE_EMB_CC_LIB_KEY_RANGE_H_
#define TF_SPARSE_EMB_CC_LIB_KEY_RANGE_H_

#include <algorithm>
#include <cstdint>

namespace sparse_emb {

// The position of the first key that is not in [0, input_dim), nor passes(key), or -1.
template <class Passes>
int64_t FirstOutOfRange(const int64_t* keys, int64_t n, int64_t input_dim, const Passes& passes) {
  constexpr int64_t kBlock = 1024;
  const uint64_t size = static_cast<uint64_t>(input_dim);
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t end = std::min(begin + kBlock, n);
    // By their signs and without a way out, so that the compiler makes a vector loop of it, also
    // for processors that compare no vectors of 64-bit integers.
    uint64_t signs = 0;
    for (int64_t i = begin; i < end; ++i) {
      const uint64_t key = static_cast<uint64_t>(keys[i]);
      signs |= key | (size - 1 - key);
    }
    if (signs >> 63 == 0) continue;
    for (int64_t i = begin; i < end; ++i) {
      if (static_cast<uint64_t>(keys[i]) >= size && !passes(keys[i])) return i;
    }
  }
  return -1;
}

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_KEY_RANGE_H_
