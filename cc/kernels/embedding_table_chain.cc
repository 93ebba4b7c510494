#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cc/kernels/adapters.h"
#include "cc/kernels/embedding_table.h"
#include "cc/lib/table_file.h"

namespace sparse_emb {

using tensorflow::DEVICE_CPU;
using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;
using tensorflow::tstring;
using tensorflow::core::RefCountPtr;

// A scalar among the inputs.
template <class T, class Out>
absl::Status GetScalar(OpKernelContext* ctx, const char* name, Out* out) {
  const Tensor* value;
  TF_RETURN_IF_ERROR(ctx->input(name, &value));
  TF_RETURN_IF_ERROR(CheckRank(name, *value, 0));
  *out = value->scalar<T>()();
  return absl::OkStatus();
}

template <class T>
absl::Status SetScalar(OpKernelContext* ctx, int output, const T& value) {
  Tensor* out;
  TF_RETURN_IF_ERROR(ctx->allocate_output(output, TensorShape({}), &out));
  out->scalar<T>()() = value;
  return absl::OkStatus();
}

class EmbeddingTableOpenLogOp : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* ctx) override {
    RefCountPtr<EmbeddingTable> table;
    OP_REQUIRES_OK(ctx, GetTable(ctx, &table));
    OP_REQUIRES_OK(ctx, SetScalar<int64_t>(ctx, 0, (*table)->OpenLog()));
  }
};

class EmbeddingTableCloseLogOp : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* ctx) override {
    RefCountPtr<EmbeddingTable> table;
    OP_REQUIRES_OK(ctx, GetTable(ctx, &table));
    int64_t log;
    OP_REQUIRES_OK(ctx, GetScalar<int64_t>(ctx, "log", &log));
    (*table)->CloseLog(log);
  }
};

class EmbeddingTableChangesOp : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* ctx) override {
    RefCountPtr<EmbeddingTable> table;
    OP_REQUIRES_OK(ctx, GetTable(ctx, &table));
    int64_t log, keys = 0;
    bool everything = false;
    OP_REQUIRES_OK(ctx, GetScalar<int64_t>(ctx, "log", &log));
    OP_REQUIRES_OK(ctx, ToAbsl((*table)->Changes(log, &everything, &keys)));
    OP_REQUIRES_OK(ctx, SetScalar<bool>(ctx, 0, everything));
    OP_REQUIRES_OK(ctx, SetScalar<int64_t>(ctx, 1, keys));
  }
};

class EmbeddingTableSaveInChainOp : public OpKernel {
 public:
  explicit EmbeddingTableSaveInChainOp(OpKernelConstruction* ctx) : OpKernel(ctx) {
    OP_REQUIRES_OK(ctx, ctx->GetAttr("increment", &increment_));
  }

  void Compute(OpKernelContext* ctx) override {
    RefCountPtr<EmbeddingTable> table;
    OP_REQUIRES_OK(ctx, GetTable(ctx, &table));
    std::string path, save;
    int64_t log;
    OP_REQUIRES_OK(ctx, GetScalar<tstring>(ctx, "path", &path));
    OP_REQUIRES_OK(ctx, GetScalar<int64_t>(ctx, "log", &log));
    OP_REQUIRES_OK(ctx, GetScalar<tstring>(ctx, "save", &save));
    OP_REQUIRES(ctx, !save.empty(), absl::InvalidArgumentError("save must not be empty"));
    IntraOpPool pool(ctx);
    const auto writer = MakeTableFileWriter(path, /*durable=*/false);
    OP_REQUIRES_OK(ctx, ToAbsl((*table)->SaveInChain(log, save, increment_, writer.get(), &pool)));
  }

 private:
  bool increment_;
};

class EmbeddingTableConfirmSaveOp : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* ctx) override {
    RefCountPtr<EmbeddingTable> table;
    OP_REQUIRES_OK(ctx, GetTable(ctx, &table));
    int64_t log;
    OP_REQUIRES_OK(ctx, GetScalar<int64_t>(ctx, "log", &log));
    OP_REQUIRES_OK(ctx, ToAbsl((*table)->ConfirmSave(log)));
  }
};

// The files of a chain.
class ChainFiles {
 public:
  absl::Status Open(OpKernelContext* ctx) {
    const Tensor *paths, *saves;
    TF_RETURN_IF_ERROR(ctx->input("paths", &paths));
    TF_RETURN_IF_ERROR(ctx->input("saves", &saves));
    TF_RETURN_IF_ERROR(CheckRank("paths", *paths, 1));
    TF_RETURN_IF_ERROR(CheckRank("saves", *saves, 1));
    TF_RETURN_IF_ERROR(CheckDim("saves", *saves, 0, paths->NumElements()));
    if (paths->NumElements() == 0) {
      return absl::InvalidArgumentError("paths must name at least one file, got none");
    }
    for (int64_t i = 0; i < paths->NumElements(); ++i) {
      readers_.push_back(
          MakeTableFileReader(paths->vec<tstring>()(i), "", saves->vec<tstring>()(i)));
      sources_.push_back(readers_.back().get());
    }
    return absl::OkStatus();
  }
  const std::vector<RowSource*>& sources() const { return sources_; }

 private:
  std::vector<std::unique_ptr<RowSource>> readers_;
  std::vector<RowSource*> sources_;
};

class EmbeddingTableCheckChainOp : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* ctx) override {
    RefCountPtr<EmbeddingTable> table;
    OP_REQUIRES_OK(ctx, GetTable(ctx, &table));
    ChainFiles files;
    OP_REQUIRES_OK(ctx, files.Open(ctx));
    int64_t whole = 0;
    Status problem;
    OP_REQUIRES_OK(ctx, ToAbsl((*table)->CheckChain(files.sources(), &whole, &problem)));
    OP_REQUIRES_OK(ctx, SetScalar<int64_t>(ctx, 0, whole));
    OP_REQUIRES_OK(ctx, SetScalar<tstring>(ctx, 1, problem.message));
  }
};

class EmbeddingTableLoadChainOp : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* ctx) override {
    RefCountPtr<EmbeddingTable> table;
    OP_REQUIRES_OK(ctx, GetTable(ctx, &table));
    ChainFiles files;
    OP_REQUIRES_OK(ctx, files.Open(ctx));
    int64_t log;
    OP_REQUIRES_OK(ctx, GetScalar<int64_t>(ctx, "log", &log));
    IntraOpPool pool(ctx);
    LoadReport report;
    OP_REQUIRES_OK(ctx, ToAbsl((*table)->LoadChain(files.sources(), log, &pool, &report)));
    OP_REQUIRES_OK(ctx, SetScalar<tstring>(ctx, 0, report.Json()));
  }
};

REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingTableOpenLog").Device(DEVICE_CPU),
                        EmbeddingTableOpenLogOp);
REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingTableCloseLog").Device(DEVICE_CPU),
                        EmbeddingTableCloseLogOp);
REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingTableChanges").Device(DEVICE_CPU),
                        EmbeddingTableChangesOp);
REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingTableSaveInChain").Device(DEVICE_CPU),
                        EmbeddingTableSaveInChainOp);
REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingTableConfirmSave").Device(DEVICE_CPU),
                        EmbeddingTableConfirmSaveOp);
REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingTableCheckChain").Device(DEVICE_CPU),
                        EmbeddingTableCheckChainOp);
REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingTableLoadChain").Device(DEVICE_CPU),
                        EmbeddingTableLoadChainOp);

}  // namespace sparse_emb
