#include "cc/kernels/adapters.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace sparse_emb {

using tensorflow::OpKernel;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;

class EmbeddingLibraryVersionOp : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* ctx) override {
    Tensor* version;
    OP_REQUIRES_OK(ctx, ctx->allocate_output(0, tensorflow::TensorShape({}), &version));
    version->scalar<tensorflow::tstring>()() = SPARSE_EMB_VERSION;
  }
};

REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingLibraryVersion").Device(tensorflow::DEVICE_CPU),
                        EmbeddingLibraryVersionOp);

}  // namespace sparse_emb
