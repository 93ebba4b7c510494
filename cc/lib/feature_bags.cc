#include "cc/lib/feature_bags.h"

#include <numeric>

#include "cc/lib/key_range.h"

namespace sparse_emb {

int64_t FirstOutOfRange(const FeatureKeys& feature) {
  if (feature.input_dim < 0) return -1;
  return FirstOutOfRange(feature.keys, feature.n, feature.input_dim,
                         [&](int64_t key) { return feature.Skips(key); });
}

void AppendBags(const FeatureKeys& feature, int64_t position, int64_t* size, int64_t* keys,
                int64_t* splits_end, int64_t* kept) {
  if (feature.keeps_all()) {
    std::copy(feature.keys, feature.keys + feature.n, keys + *size);
    if (kept != nullptr) std::iota(kept + *size, kept + *size + feature.n, position);
    if (splits_end != nullptr) {
      for (int64_t b = 0; b < feature.num_bags; ++b) splits_end[b] = *size + feature.begin(b + 1);
    }
    *size += feature.n;
    return;
  }
  for (int64_t b = 0; b < feature.num_bags; ++b) {
    const int64_t begin = feature.begin(b);
    int64_t length = feature.begin(b + 1) - begin;
    if (feature.max_length >= 0) length = std::min(length, feature.max_length);
    for (int64_t i = begin; i < begin + length; ++i) {
      if (feature.Skips(feature.keys[i])) continue;
      keys[*size] = feature.keys[i];
      if (kept != nullptr) kept[*size] = position + i;
      ++*size;
    }
    if (splits_end != nullptr) splits_end[b] = *size;
  }
}

}  // namespace sparse_emb
