#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/util/device_name_utils.h"

namespace sparse_emb {

using tensorflow::DEVICE_CPU;
using tensorflow::DeviceNameUtils;
using tensorflow::OpKernel;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;

class LibraryVersionOp : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* ctx) override {
    Tensor* version;
    OP_REQUIRES_OK(ctx, ctx->allocate_output(0, TensorShape({}), &version));
    version->scalar<tensorflow::tstring>()() = SPARSE_EMB_VERSION;
  }
};

class TaskIndexOp : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* ctx) override {
    DeviceNameUtils::ParsedName name;
    Tensor* index;
    OP_REQUIRES_OK(ctx, ctx->allocate_output(0, TensorShape({}), &index));
    const bool has_task =
        DeviceNameUtils::ParseFullName(ctx->device()->name(), &name) && name.has_task;
    index->scalar<int64_t>()() = has_task ? name.task : 0;
  }
};

REGISTER_KERNEL_BUILDER(Name("SparseEmb>LibraryVersion").Device(DEVICE_CPU), LibraryVersionOp);
REGISTER_KERNEL_BUILDER(Name("SparseEmb>TaskIndex").Device(DEVICE_CPU), TaskIndexOp);

}  // namespace sparse_emb
