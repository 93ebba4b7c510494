// The keys of several features as one list of keys in bags: what the ops after it work on, however
// many features there are and whatever their shapes.
//
//   for each feature, for each of its bags:
//     for the first max_length keys of the bag that are not skipped:
//       append the key; kept = its position among all keys that came in
//     end the bag
#ifndef TF_SPARSE_EMB_CC_LIB_FEATURE_BAGS_H_
#define TF_SPARSE_EMB_CC_LIB_FEATURE_BAGS_H_

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "cc/lib/status.h"

namespace sparse_emb {

struct FeatureKeys {
  std::string name;     // for error messages
  const int64_t* keys;  // [n]
  int64_t n;
  int64_t num_bags;
  int64_t bag_size;              // of every bag, where splits is null
  const int64_t* splits;         // [num_bags + 1] or null
  std::vector<int64_t> skipped;  // keys that stand for nothing
  int64_t max_length = -1;       // keys of a bag that count, skipped ones too; -1: all
  int64_t input_dim = -1;        // keys must be in [0, input_dim) or skipped; -1: every int64

  int64_t begin(int64_t bag) const { return splits == nullptr ? bag * bag_size : splits[bag]; }

  bool Skips(int64_t key) const {
    return std::find(skipped.begin(), skipped.end(), key) != skipped.end();
  }

  // Whether every key is kept.
  bool keeps_all() const { return skipped.empty() && max_length < 0; }
};

// The position of the first key that is out of range, or -1.
int64_t FirstOutOfRange(const FeatureKeys& feature);

// Appends the feature's bags: the arrays have room for all its keys and bags. *size is the number
// of keys so far, `position` the number of those that came in before. splits_end and kept may be
// null. splits_end[b] = where bag b ends.
void AppendBags(const FeatureKeys& feature, int64_t position, int64_t* size, int64_t* keys,
                int64_t* splits_end, int64_t* kept);

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_FEATURE_BAGS_H_
