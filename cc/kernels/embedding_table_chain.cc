#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cc/kernels/adapters.h"
#include "cc/kernels/embedding_table.h"
#include "cc/lib/table_file.h"

namespace sparse_emb {

using tensorflow::DEVICE_CPU;
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

class EmbeddingTableOpenLogOp : public Kernel {
 public:
  using Kernel::Kernel;

  void Run(OpKernelContext* ctx) override {
    RefCountPtr<EmbeddingTable> table;
    OP_REQUIRES_OK(ctx, GetTable(ctx, &table));
    OP_REQUIRES_OK(ctx, SetScalar<int64_t>(ctx, 0, (*table)->OpenLog()));
  }
};

class EmbeddingTableCloseLogOp : public Kernel {
 public:
  using Kernel::Kernel;

  void Run(OpKernelContext* ctx) override {
    RefCountPtr<EmbeddingTable> table;
    OP_REQUIRES_OK(ctx, GetTable(ctx, &table));
    int64_t log;
    OP_REQUIRES_OK(ctx, GetScalar<int64_t>(ctx, "log", &log));
    (*table)->CloseLog(log);
  }
};

class EmbeddingTableChangesOp : public Kernel {
 public:
  using Kernel::Kernel;

  void Run(OpKernelContext* ctx) override {
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

class EmbeddingTableSaveInChainOp : public Kernel {
 public:
  explicit EmbeddingTableSaveInChainOp(OpKernelConstruction* ctx) : Kernel(ctx) {
    OP_REQUIRES_OK(ctx, ctx->GetAttr("increment", &increment_));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("durable", &durable_));
  }

  void Run(OpKernelContext* ctx) override {
    RefCountPtr<EmbeddingTable> table;
    OP_REQUIRES_OK(ctx, GetTable(ctx, &table));
    std::string path, save;
    int64_t log;
    OP_REQUIRES_OK(ctx, GetScalar<tstring>(ctx, "path", &path));
    OP_REQUIRES_OK(ctx, GetScalar<int64_t>(ctx, "log", &log));
    OP_REQUIRES_OK(ctx, GetScalar<tstring>(ctx, "save", &save));
    OP_REQUIRES(ctx, !save.empty(), absl::InvalidArgumentError("save must not be empty"));
    IntraOpPool pool(ctx);
    const auto writer = MakeTableFileWriter(path, durable_);
    OP_REQUIRES_OK(ctx, ToAbsl((*table)->SaveInChain(log, save, increment_, writer.get(), &pool)));
  }

 private:
  bool increment_, durable_;
};

class EmbeddingTableConfirmSaveOp : public Kernel {
 public:
  using Kernel::Kernel;

  void Run(OpKernelContext* ctx) override {
    RefCountPtr<EmbeddingTable> table;
    OP_REQUIRES_OK(ctx, GetTable(ctx, &table));
    int64_t log;
    OP_REQUIRES_OK(ctx, GetScalar<int64_t>(ctx, "log", &log));
    OP_REQUIRES_OK(ctx, ToAbsl((*table)->ConfirmSave(log)));
  }
};

// What reads the files of a saved table, paths [S, P], of which this server has a share.
class ReadChainsOp : public Kernel {
 public:
  explicit ReadChainsOp(OpKernelConstruction* ctx) : Kernel(ctx) {
    OP_REQUIRES_OK(ctx, GetShare(ctx, &share_));
  }

  void Run(OpKernelContext* ctx) override {
    RefCountPtr<EmbeddingTable> table;
    OP_REQUIRES_OK(ctx, GetTable(ctx, &table));
    const Tensor *paths, *saves;
    OP_REQUIRES_OK(ctx, ctx->input("paths", &paths));
    OP_REQUIRES_OK(ctx, ctx->input("saves", &saves));
    OP_REQUIRES_OK(ctx, CheckRank("paths", *paths, 2));
    OP_REQUIRES_OK(ctx, CheckRank("saves", *saves, 2));
    OP_REQUIRES_OK(ctx, CheckDim("saves", *saves, 0, paths->dim_size(0)));
    OP_REQUIRES_OK(ctx, CheckDim("saves", *saves, 1, paths->dim_size(1)));
    OP_REQUIRES(ctx, paths->NumElements() > 0,
                absl::InvalidArgumentError("paths must name at least one file, got none"));
    std::vector<std::unique_ptr<RowSource>> readers;
    Chains chains(paths->dim_size(0));
    for (int64_t s = 0; s < paths->dim_size(0); ++s) {
      for (int64_t p = 0; p < paths->dim_size(1); ++p) {
        readers.push_back(MakeTableFileReader(paths->matrix<tstring>()(s, p), "",
                                              saves->matrix<tstring>()(s, p)));
        chains[s].push_back(readers.back().get());
      }
    }
    OP_REQUIRES_OK(ctx, Read(ctx, table->get(), chains, share_));
  }

 protected:
  virtual absl::Status Read(OpKernelContext* ctx, Table* table, const Chains& chains,
                            const Share& share) = 0;

 private:
  Share share_;
};

class EmbeddingTableCheckChainsOp : public ReadChainsOp {
 public:
  using ReadChainsOp::ReadChainsOp;

 private:
  absl::Status Read(OpKernelContext* ctx, Table* table, const Chains& chains,
                    const Share& share) override {
    int64_t whole = 0;
    Status problem;
    TF_RETURN_IF_ERROR(ToAbsl(table->CheckChains(chains, share, &whole, &problem)));
    TF_RETURN_IF_ERROR(SetScalar<int64_t>(ctx, 0, whole));
    return SetScalar<tstring>(ctx, 1, problem.message);
  }
};

class EmbeddingTableLoadChainsOp : public ReadChainsOp {
 public:
  using ReadChainsOp::ReadChainsOp;

 private:
  absl::Status Read(OpKernelContext* ctx, Table* table, const Chains& chains,
                    const Share& share) override {
    int64_t log;
    TF_RETURN_IF_ERROR(GetScalar<int64_t>(ctx, "log", &log));
    IntraOpPool pool(ctx);
    LoadReport report;
    TF_RETURN_IF_ERROR(ToAbsl(table->LoadChains(chains, share, log, &pool, &report)));
    return SetScalar<tstring>(ctx, 0, report.Json());
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
REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingTableCheckChains").Device(DEVICE_CPU),
                        EmbeddingTableCheckChainsOp);
REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingTableLoadChains").Device(DEVICE_CPU),
                        EmbeddingTableLoadChainsOp);

}  // namespace sparse_emb
