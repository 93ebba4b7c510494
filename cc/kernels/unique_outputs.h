// The outputs of an op that deduplicates keys.
#ifndef TF_SPARSE_EMB_CC_KERNELS_UNIQUE_OUTPUTS_H_
#define TF_SPARSE_EMB_CC_KERNELS_UNIQUE_OUTPUTS_H_

#include <cstdint>
#include <limits>

#include "cc/kernels/adapters.h"
#include "cc/lib/dedup_lookup.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace sparse_emb {

// unique_keys, inverse, counts and table_splits, outputs 0 to 3. U is known only at the end, so the
// unique keys and their counts are the first of buffers of size N.
class UniqueOutputs {
 public:
  absl::Status Allocate(tensorflow::OpKernelContext* ctx, const tensorflow::Tensor& keys,
                        int64_t num_tables) {
    TF_RETURN_IF_ERROR(CheckRank("keys", keys, 1));
    if (keys.NumElements() > std::numeric_limits<int32_t>::max()) {
      return absl::InvalidArgumentError(
          absl::StrCat("keys must have fewer than 2^31 elements, got ", keys.NumElements()));
    }
    TF_RETURN_IF_ERROR(ctx->allocate_temp(tensorflow::DT_INT64, keys.shape(), &keys_));
    TF_RETURN_IF_ERROR(ctx->allocate_temp(tensorflow::DT_INT32, keys.shape(), &counts_));
    tensorflow::Tensor *inverse, *splits;
    TF_RETURN_IF_ERROR(ctx->allocate_output(1, keys.shape(), &inverse));
    TF_RETURN_IF_ERROR(ctx->allocate_output(3, tensorflow::TensorShape({num_tables + 1}), &splits));
    room_ = {keys_.vec<int64_t>().data(), inverse->vec<int32_t>().data(),
             counts_.vec<int32_t>().data()};
    table_splits_ = splits->vec<int64_t>().data();
    return absl::OkStatus();
  }

  const UniqueOut& room() const { return room_; }
  int64_t* table_splits() const { return table_splits_; }

  void SetUnique(tensorflow::OpKernelContext* ctx, int64_t num_unique) {
    ctx->set_output(0, keys_.Slice(0, num_unique));
    ctx->set_output(2, counts_.Slice(0, num_unique));
  }

 private:
  tensorflow::Tensor keys_, counts_;
  UniqueOut room_ = {};
  int64_t* table_splits_ = nullptr;
};

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_KERNELS_UNIQUE_OUTPUTS_H_
