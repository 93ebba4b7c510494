#include "cc/kernels/embedding_table.h"

#include <vector>

#include "cc/kernels/adapters.h"

namespace sparse_emb {

using tensorflow::DEVICE_CPU;
using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::ResourceHandle;
using tensorflow::Tensor;
using tensorflow::TensorShape;
using tensorflow::core::RefCountPtr;

class EmbeddingTableOp : public OpKernel {
 public:
  explicit EmbeddingTableOp(OpKernelConstruction* ctx) : OpKernel(ctx) {
    OP_REQUIRES_OK(ctx, ctx->GetAttr("table_name", &options_.name));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("dim", &options_.dim));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("storage", &options_.storage));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("input_dim", &options_.input_dim));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("max_rows", &options_.max_rows));
    std::string kind;
    float a, b;
    int64_t seed;
    OP_REQUIRES_OK(ctx, ctx->GetAttr("initializer", &kind));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("initializer_a", &a));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("initializer_b", &b));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("seed", &seed));
    OP_REQUIRES_OK(ctx, ToAbsl(InitialRow::Make(kind, a, b, seed, &options_.initial_row)));
  }

  void Compute(OpKernelContext* ctx) override {
    std::unique_ptr<Table> table;
    OP_REQUIRES_OK(ctx, ToAbsl(MakeTable(options_, &table)));
    Tensor* handle;
    tensorflow::AllocatorAttributes on_host;
    on_host.set_on_host(true);
    OP_REQUIRES_OK(ctx, ctx->allocate_output(0, TensorShape({}), &handle, on_host));
    handle->scalar<ResourceHandle>()() = ResourceHandle::MakeRefCountingHandle(
        new EmbeddingTable(std::move(table)), ctx->device()->name());
  }

 private:
  TableOptions options_;
};

class EmbeddingTableBindOp : public OpKernel {
 public:
  explicit EmbeddingTableBindOp(OpKernelConstruction* ctx) : OpKernel(ctx) {
    OP_REQUIRES_OK(ctx, ctx->GetAttr("rule", &rule_));
  }

  void Compute(OpKernelContext* ctx) override {
    RefCountPtr<EmbeddingTable> table;
    OP_REQUIRES_OK(ctx, GetTable(ctx, &table));
    const Tensor& state = ctx->input(1);
    OP_REQUIRES_OK(ctx, CheckRank("initial_state", state, 1));
    Tensor* binding;
    OP_REQUIRES_OK(ctx, ctx->allocate_output(0, TensorShape({}), &binding));
    const auto values = state.vec<float>();
    IntraOpPool pool(ctx);
    OP_REQUIRES_OK(ctx, ToAbsl((*table)->Bind(
                            rule_, std::vector<float>(values.data(), values.data() + values.size()),
                            &pool, &binding->scalar<int64_t>()())));
  }

 private:
  std::string rule_;
};

class EmbeddingTableSizeOp : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* ctx) override {
    RefCountPtr<EmbeddingTable> table;
    OP_REQUIRES_OK(ctx, GetTable(ctx, &table));
    Tensor* size;
    OP_REQUIRES_OK(ctx, ctx->allocate_output(0, TensorShape({}), &size));
    size->scalar<int64_t>()() = (*table)->Size();
  }
};

class EmbeddingTableMemoryBytesOp : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* ctx) override {
    RefCountPtr<EmbeddingTable> table;
    OP_REQUIRES_OK(ctx, GetTable(ctx, &table));
    Tensor* bytes;
    OP_REQUIRES_OK(ctx, ctx->allocate_output(0, TensorShape({}), &bytes));
    bytes->scalar<int64_t>()() = (*table)->MemoryBytes();
  }
};

class EmbeddingTableContainsOp : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* ctx) override {
    RefCountPtr<EmbeddingTable> table;
    OP_REQUIRES_OK(ctx, GetTable(ctx, &table));
    const Tensor& keys = ctx->input(1);
    OP_REQUIRES_OK(ctx, CheckRank("keys", keys, 1));
    Tensor* present;
    OP_REQUIRES_OK(ctx, ctx->allocate_output(0, keys.shape(), &present));
    IntraOpPool pool(ctx);
    OP_REQUIRES_OK(ctx, ToAbsl((*table)->Contains(keys.vec<int64_t>().data(), keys.NumElements(),
                                                  present->vec<bool>().data(), &pool)));
  }
};

class EmbeddingTableUpsertOp : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* ctx) override {
    RefCountPtr<EmbeddingTable> table;
    OP_REQUIRES_OK(ctx, GetTable(ctx, &table));
    const Tensor& keys = ctx->input(1);
    const Tensor& rows = ctx->input(2);
    OP_REQUIRES_OK(ctx, CheckRank("keys", keys, 1));
    OP_REQUIRES_OK(ctx, CheckRank("rows", rows, 2));
    OP_REQUIRES_OK(ctx, CheckDim("rows", rows, 0, keys.NumElements()));
    OP_REQUIRES_OK(ctx, CheckDim("rows", rows, 1, (*table)->options().dim));
    IntraOpPool pool(ctx);
    OP_REQUIRES_OK(ctx,
                   ToAbsl((*table)->Upsert(keys.vec<int64_t>().data(), rows.matrix<float>().data(),
                                           keys.NumElements(), &pool)));
  }
};

class EmbeddingTableRemoveOp : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* ctx) override {
    RefCountPtr<EmbeddingTable> table;
    OP_REQUIRES_OK(ctx, GetTable(ctx, &table));
    const Tensor& keys = ctx->input(1);
    OP_REQUIRES_OK(ctx, CheckRank("keys", keys, 1));
    IntraOpPool pool(ctx);
    OP_REQUIRES_OK(ctx,
                   ToAbsl((*table)->Remove(keys.vec<int64_t>().data(), keys.NumElements(), &pool)));
  }
};

class EmbeddingTableClearOp : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* ctx) override {
    RefCountPtr<EmbeddingTable> table;
    OP_REQUIRES_OK(ctx, GetTable(ctx, &table));
    (*table)->Clear();
  }
};

class EmbeddingTableExportOp : public OpKernel {
 public:
  explicit EmbeddingTableExportOp(OpKernelConstruction* ctx) : OpKernel(ctx) {
    OP_REQUIRES_OK(ctx, ctx->GetAttr("with_state", &with_state_));
  }

  void Compute(OpKernelContext* ctx) override {
    RefCountPtr<EmbeddingTable> table;
    OP_REQUIRES_OK(ctx, GetTable(ctx, &table));
    (*table)->Export(with_state_, [ctx](int64_t n, int64_t width) -> Table::ExportBuffers {
      Tensor *keys, *rows;
      absl::Status status = ctx->allocate_output(0, TensorShape({n}), &keys);
      if (status.ok()) status = ctx->allocate_output(1, TensorShape({n, width}), &rows);
      if (!status.ok()) {
        ctx->SetStatus(status);
        return {nullptr, nullptr};
      }
      return {keys->vec<int64_t>().data(), rows->matrix<float>().data()};
    });
  }

 private:
  bool with_state_;
};

REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingTable").Device(DEVICE_CPU), EmbeddingTableOp);
REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingTableBind").Device(DEVICE_CPU),
                        EmbeddingTableBindOp);
REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingTableSize").Device(DEVICE_CPU),
                        EmbeddingTableSizeOp);
REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingTableMemoryBytes").Device(DEVICE_CPU),
                        EmbeddingTableMemoryBytesOp);
REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingTableContains").Device(DEVICE_CPU),
                        EmbeddingTableContainsOp);
REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingTableUpsert").Device(DEVICE_CPU),
                        EmbeddingTableUpsertOp);
REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingTableRemove").Device(DEVICE_CPU),
                        EmbeddingTableRemoveOp);
REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingTableClear").Device(DEVICE_CPU),
                        EmbeddingTableClearOp);
REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingTableExport").Device(DEVICE_CPU),
                        EmbeddingTableExportOp);

}  // namespace sparse_emb
