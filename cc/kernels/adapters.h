// Between TensorFlow and cc/lib: threads, errors and tensors.
#ifndef TF_SPARSE_EMB_CC_KERNELS_ADAPTERS_H_
#define TF_SPARSE_EMB_CC_KERNELS_ADAPTERS_H_

#include <algorithm>
#include <exception>
#include <functional>
#include <initializer_list>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "cc/lib/can_throw.h"
#include "cc/lib/shared_loop.h"
#include "cc/lib/status.h"
#include "cc/lib/worker_pool.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/util/work_sharder.h"

namespace sparse_emb {

// TensorFlow's intra-op threads.
class IntraOpPool final : public WorkerPool {
 public:
  explicit IntraOpPool(tensorflow::OpKernelContext* ctx)
      : threads_(ctx->device()->tensorflow_cpu_worker_threads()->workers) {}

  int num_threads() const override { return threads_->NumThreads(); }
  void ParallelFor(int64_t total, int64_t cost, const RangeFn& fn) override {
    const int most = std::min(num_threads(), tensorflow::GetPerThreadMaxParallelism());
    SharedLoop::Run(total, cost, most, fn, [this](std::function<void()> helper) {
      threads_->Schedule(std::move(helper));
    });
  }

 private:
  tensorflow::thread::ThreadPool* const threads_;
};

inline absl::Status ToAbsl(const Status& status) {
  switch (status.code) {
    case Code::kOk:
      return absl::OkStatus();
    case Code::kInvalidArgument:
      return absl::InvalidArgumentError(status.message);
    case Code::kFailedPrecondition:
      return absl::FailedPreconditionError(status.message);
    case Code::kResourceExhausted:
      return absl::ResourceExhaustedError(status.message);
    case Code::kNotFound:
      return absl::NotFoundError(status.message);
    case Code::kDataLoss:
      return absl::DataLossError(status.message);
    case Code::kUnavailable:
      return absl::UnavailableError(status.message);
  }
  return absl::InternalError(status.message);
}

// `where` is the file, or whatever else TensorFlow's error leaves unsaid.
inline Status FromAbsl(const absl::Status& status, const std::string& where) {
  if (status.ok()) return {};
  Code code = Code::kUnavailable;
  if (absl::IsDataLoss(status) || absl::IsOutOfRange(status)) code = Code::kDataLoss;
  if (absl::IsNotFound(status)) code = Code::kNotFound;
  if (absl::IsInvalidArgument(status)) code = Code::kInvalidArgument;
  if (absl::IsResourceExhausted(status)) code = Code::kResourceExhausted;
  return Error(code, where, ": ", std::string(status.message()));
}

// The base of our kernels: what is thrown where memory runs out becomes an error of the op.
// TensorFlow lets exceptions end the process.
class Kernel : public tensorflow::OpKernel {
 public:
  explicit Kernel(tensorflow::OpKernelConstruction* ctx) : OpKernel(ctx) {}

  void Compute(tensorflow::OpKernelContext* ctx) final {
    CanThrow();  // while there is memory
    try {
      Run(ctx);
    } catch (const std::bad_alloc&) {
      ctx->SetStatus(NoMemory());
    } catch (const std::length_error&) {  // a vector of more elements than addresses
      ctx->SetStatus(NoMemory());
    } catch (const std::exception& error) {
      ctx->SetStatus(absl::InternalError(absl::StrCat(type_string(), ": ", error.what())));
    }
  }

 protected:
  virtual void Run(tensorflow::OpKernelContext* ctx) = 0;

 private:
  absl::Status NoMemory() const {
    return absl::ResourceExhaustedError(absl::StrCat("out of memory in op ", type_string()));
  }
};

// Allocates output `index` with these dims; an error if it has more elements than an int64 counts,
// which would end the process in a constructor of TensorShape.
inline absl::Status AllocateOutput(tensorflow::OpKernelContext* ctx, int index,
                                   std::initializer_list<int64_t> dims, tensorflow::Tensor** out) {
  tensorflow::TensorShape shape;
  TF_RETURN_IF_ERROR(tensorflow::TensorShape::BuildTensorShape(dims, &shape));
  return ctx->allocate_output(index, shape, out);
}

// An error unless the tensor has this rank.
inline absl::Status CheckRank(const char* name, const tensorflow::Tensor& tensor, int rank) {
  if (tensor.dims() == rank) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(name, " must have rank ", rank, ", got shape ", tensor.shape().DebugString()));
}

// An error unless dimension `axis` of the tensor has this size.
inline absl::Status CheckDim(const char* name, const tensorflow::Tensor& tensor, int axis,
                             int64_t size) {
  if (tensor.dim_size(axis) == size) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(name, " must have size ", size, " in dimension ",
                                                 axis, ", got shape ",
                                                 tensor.shape().DebugString()));
}

// Splits [B + 1] from 0 to n, ascending.
inline absl::Status CheckSplits(const char* name, const tensorflow::Tensor& tensor, int64_t n) {
  TF_RETURN_IF_ERROR(CheckRank(name, tensor, 1));
  const auto splits = tensor.vec<int64_t>();
  if (splits.size() == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, " must have at least one element, got none"));
  }
  if (splits(0) != 0 || splits(splits.size() - 1) != n) {
    return absl::InvalidArgumentError(absl::StrCat(name, " must go from 0 to ", n,
                                                   ", the number of values, got ", splits(0),
                                                   " to ", splits(splits.size() - 1)));
  }
  for (int64_t b = 1; b < splits.size(); ++b) {
    if (splits(b) >= splits(b - 1)) continue;
    return absl::InvalidArgumentError(absl::StrCat(name, " must not descend, got ", name, "[", b,
                                                   "] = ", splits(b), " after ", splits(b - 1)));
  }
  return absl::OkStatus();
}

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_KERNELS_ADAPTERS_H_
