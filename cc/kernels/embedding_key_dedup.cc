#include "cc/kernels/adapters.h"
#include "cc/kernels/input_splits.h"
#include "cc/kernels/unique_outputs.h"
#include "cc/lib/key_dedup.h"
#include "cc/ops/feature_attrs.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace sparse_emb {

using tensorflow::DEVICE_CPU;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;

class EmbeddingKeyDedupOp : public Kernel {
 public:
  explicit EmbeddingKeyDedupOp(OpKernelConstruction* ctx) : Kernel(ctx) {
    OP_REQUIRES_OK(ctx, attrs_.Get(ctx, "tables"));
  }

  void Run(OpKernelContext* ctx) override {
    const Tensor& keys = ctx->input(0);
    UniqueOutputs out;
    OP_REQUIRES_OK(ctx, out.Allocate(ctx, keys, attrs_.num_tables));
    InputSplits splits;
    OP_REQUIRES_OK(ctx,
                   splits.Get(ctx, "feature_splits", attrs_.tables.size(), keys.NumElements()));
    IntraOpPool pool(ctx);
    const UniqueOut& room = out.room();
    out.SetUnique(ctx,
                  DedupKeysByTable(keys.vec<int64_t>().data(), splits.data(), attrs_.tables.data(),
                                   attrs_.tables.size(), attrs_.num_tables, room.keys, room.inverse,
                                   room.counts, out.table_splits(), &pool));
  }

 private:
  KeyDedupAttrs attrs_;
};

REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingKeyDedup").Device(DEVICE_CPU),
                        EmbeddingKeyDedupOp);

}  // namespace sparse_emb
