#include <memory>
#include <string>

#include "cc/kernels/adapters.h"
#include "cc/kernels/embedding_table.h"
#include "cc/kernels/table_bundle.h"
#include "cc/lib/table_file.h"

namespace sparse_emb {

using tensorflow::DEVICE_CPU;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;
using tensorflow::core::RefCountPtr;

// A scalar string among the inputs.
absl::Status GetString(OpKernelContext* ctx, const char* name, std::string* out) {
  const Tensor* value;
  TF_RETURN_IF_ERROR(ctx->input(name, &value));
  TF_RETURN_IF_ERROR(CheckRank(name, *value, 0));
  *out = value->scalar<tensorflow::tstring>()();
  return absl::OkStatus();
}

class EmbeddingTableSaveOp : public Kernel {
 public:
  explicit EmbeddingTableSaveOp(OpKernelConstruction* ctx) : Kernel(ctx) {
    OP_REQUIRES_OK(ctx, ctx->GetAttr("with_state", &with_state_));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("durable", &durable_));
  }

  void Run(OpKernelContext* ctx) override {
    RefCountPtr<EmbeddingTable> table;
    OP_REQUIRES_OK(ctx, GetTable(ctx, &table));
    std::string path;
    OP_REQUIRES_OK(ctx, GetString(ctx, "path", &path));
    IntraOpPool pool(ctx);
    const auto writer = MakeTableFileWriter(path, durable_);
    OP_REQUIRES_OK(ctx, ToAbsl((*table)->Save(with_state_, writer.get(), &pool)));
  }

 private:
  bool with_state_, durable_;
};

class EmbeddingTableSaveBundleOp : public Kernel {
 public:
  using Kernel::Kernel;

  void Run(OpKernelContext* ctx) override {
    RefCountPtr<EmbeddingTable> table;
    OP_REQUIRES_OK(ctx, GetTable(ctx, &table));
    std::string prefix, key;
    OP_REQUIRES_OK(ctx, GetString(ctx, "prefix", &prefix));
    OP_REQUIRES_OK(ctx, GetString(ctx, "key", &key));
    IntraOpPool pool(ctx);
    const auto writer = MakeBundleWriter(prefix, key);
    OP_REQUIRES_OK(ctx, ToAbsl((*table)->Save(/*with_state=*/true, writer.get(), &pool)));
  }
};

// What replaces a table's rows by what a source holds.
class LoadOp : public Kernel {
 public:
  using Kernel::Kernel;

  void Run(OpKernelContext* ctx) override {
    RefCountPtr<EmbeddingTable> table;
    OP_REQUIRES_OK(ctx, GetTable(ctx, &table));
    std::unique_ptr<RowSource> source;
    OP_REQUIRES_OK(ctx, MakeSource(ctx, &source));
    Tensor* report;
    OP_REQUIRES_OK(ctx, ctx->allocate_output(0, TensorShape({}), &report));
    IntraOpPool pool(ctx);
    LoadReport result;
    OP_REQUIRES_OK(ctx, ToAbsl(only_check_ ? (*table)->CheckSource(source.get(), &result)
                                           : (*table)->Load(source.get(), &pool, &result)));
    report->scalar<tensorflow::tstring>()() = result.Json();
  }

 protected:
  virtual absl::Status MakeSource(OpKernelContext* ctx, std::unique_ptr<RowSource>* out) = 0;

  bool only_check_ = false;
};

class EmbeddingTableLoadOp : public LoadOp {
 public:
  explicit EmbeddingTableLoadOp(OpKernelConstruction* ctx) : LoadOp(ctx) {
    OP_REQUIRES_OK(ctx, ctx->GetAttr("only_check", &only_check_));
  }

 private:
  absl::Status MakeSource(OpKernelContext* ctx, std::unique_ptr<RowSource>* out) override {
    std::string path, source;
    TF_RETURN_IF_ERROR(GetString(ctx, "path", &path));
    TF_RETURN_IF_ERROR(GetString(ctx, "source", &source));
    *out = MakeTableFileReader(path, source);
    return absl::OkStatus();
  }
};

class EmbeddingTableLoadBundleOp : public LoadOp {
 public:
  using LoadOp::LoadOp;

 private:
  absl::Status MakeSource(OpKernelContext* ctx, std::unique_ptr<RowSource>* out) override {
    std::string prefix, key;
    TF_RETURN_IF_ERROR(GetString(ctx, "prefix", &prefix));
    TF_RETURN_IF_ERROR(GetString(ctx, "key", &key));
    *out = MakeBundleReader(prefix, key);
    return absl::OkStatus();
  }
};

REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingTableSave").Device(DEVICE_CPU),
                        EmbeddingTableSaveOp);
REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingTableLoad").Device(DEVICE_CPU),
                        EmbeddingTableLoadOp);
REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingTableSaveBundle").Device(DEVICE_CPU),
                        EmbeddingTableSaveBundleOp);
REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingTableLoadBundle").Device(DEVICE_CPU),
                        EmbeddingTableLoadBundleOp);

}  // namespace sparse_emb
