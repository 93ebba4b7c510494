// How the rows of a chunk are a part of a tensor in a checkpoint.
#ifndef TF_SPARSE_EMB_CC_KERNELS_BUNDLE_SLICE_H_
#define TF_SPARSE_EMB_CC_KERNELS_BUNDLE_SLICE_H_

#include <cstdint>
#include <string>

#include "tensorflow/core/framework/tensor_slice.h"
#include "tensorflow/core/util/saved_tensor_slice_util.h"

namespace sparse_emb {

// Rows [begin, begin + n) of a tensor [V] or [V, width].
inline tensorflow::TensorSlice BundleSlice(int64_t begin, int64_t n, int dims) {
  tensorflow::TensorSlice slice(dims);
  slice.set_start(0, begin);
  slice.set_length(0, n);
  return slice;
}

// Under which key a checkpoint has those rows of a tensor of V rows, as TensorFlow's BundleWriter
// chooses it.
inline std::string BundleSliceKey(const std::string& name, int64_t begin, int64_t n, int dims,
                                  int64_t v) {
  if (n == v) return name;
  return tensorflow::checkpoint::EncodeTensorNameSlice(name, BundleSlice(begin, n, dims));
}

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_KERNELS_BUNDLE_SLICE_H_
