#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/util/device_name_utils.h"

namespace sparse_emb {

using tensorflow::DEVICE_CPU;
using tensorflow::DeviceNameUtils;
using tensorflow::OpKernel;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;

namespace {

// Volatile, so that the text stands in the library in one piece, for `strings`.
const char* volatile version = SPARSE_EMB_VERSION;

}  // namespace

class LibraryVersionOp : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* ctx) override {
    Tensor* out;
    OP_REQUIRES_OK(ctx, ctx->allocate_output(0, TensorShape({}), &out));
    out->scalar<tensorflow::tstring>()() = version;
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
