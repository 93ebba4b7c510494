// The hash of keys. Every step is a bijection on 64 bits, so different keys have different hashes.
#ifndef TF_SPARSE_EMB_CC_LIB_HASH_H_
#define TF_SPARSE_EMB_CC_LIB_HASH_H_

#include <cstdint>

#include "cc/lib/cpu_dispatch.h"

namespace sparse_emb {

// The finaliser of splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
// generators", OOPSLA 2014; the constants are Stafford's variant 13).
SPARSE_EMB_INLINE uint64_t Mix64(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

SPARSE_EMB_INLINE uint64_t HashKey(int64_t key) {
  return Mix64(static_cast<uint64_t>(key) + 0x9e3779b97f4a7c15ull);
}

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_HASH_H_
