#include <algorithm>
#include <limits>
#include <vector>

#include "cc/kernels/adapters.h"
#include "cc/kernels/input_splits.h"
#include "cc/lib/partition.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace sparse_emb {
namespace {

using tensorflow::DEVICE_CPU;
using tensorflow::OpInputList;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::OpOutputList;
using tensorflow::Tensor;
using tensorflow::TensorShape;

// An error unless positions, of all parts, are each of [0, n) once.
absl::Status CheckPositions(const OpInputList& positions, int64_t n) {
  std::vector<bool> seen(n);
  int64_t count = 0;
  for (const Tensor& part : positions) {
    TF_RETURN_IF_ERROR(CheckRank("positions", part, 1));
    count += part.NumElements();
    const auto values = part.vec<int32_t>();
    for (int64_t i = 0; i < values.size(); ++i) {
      if (values(i) < 0 || values(i) >= n || seen[values(i)]) {
        return absl::InvalidArgumentError(absl::StrCat(
            "positions must be each of [0, ", n, ") once, got positions[", i, "] = ", values(i)));
      }
      seen[values(i)] = true;
    }
  }
  if (count == n) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("positions must be each of [0, ", n, ") once, got ", count, " of them"));
}

}  // namespace

class EmbeddingPartitionOp : public Kernel {
 public:
  explicit EmbeddingPartitionOp(OpKernelConstruction* ctx) : Kernel(ctx) {
    OP_REQUIRES_OK(ctx, ctx->GetAttr("num_servers", &num_servers_));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("num_tables", &num_tables_));
  }

  void Run(OpKernelContext* ctx) override {
    const Tensor& keys = ctx->input(0);
    OP_REQUIRES_OK(ctx, CheckRank("keys", keys, 1));
    const int64_t n = keys.NumElements();
    OP_REQUIRES(ctx, n <= std::numeric_limits<int32_t>::max(),
                absl::InvalidArgumentError(
                    absl::StrCat("keys must have fewer than 2^31 elements, got ", n)));
    TableSplits splits;
    OP_REQUIRES_OK(ctx, splits.Get(ctx, num_tables_, n));
    const Partition partition(keys.vec<int64_t>().data(), splits.data(), num_tables_, num_servers_);
    OpOutputList server_keys, server_splits, positions;
    OP_REQUIRES_OK(ctx, ctx->output_list("server_keys", &server_keys));
    OP_REQUIRES_OK(ctx, ctx->output_list("server_splits", &server_splits));
    OP_REQUIRES_OK(ctx, ctx->output_list("positions", &positions));
    std::vector<ServerKeys> to(num_servers_);
    for (int s = 0; s < num_servers_; ++s) {
      Tensor* out;
      OP_REQUIRES_OK(ctx, server_splits.allocate(s, TensorShape({num_tables_ + 1}), &out));
      int64_t* const table_splits = out->vec<int64_t>().data();
      partition.Splits(s, table_splits);
      const TensorShape shape({table_splits[num_tables_]});
      OP_REQUIRES_OK(ctx, server_keys.allocate(s, shape, &out));
      to[s].keys = out->vec<int64_t>().data();
      OP_REQUIRES_OK(ctx, positions.allocate(s, shape, &out));
      to[s].positions = out->vec<int32_t>().data();
    }
    partition.Write(std::move(to));
  }

 private:
  int num_servers_, num_tables_;
};

class EmbeddingPartitionRowsOp : public Kernel {
 public:
  using Kernel::Kernel;

  void Run(OpKernelContext* ctx) override {
    const Tensor& rows = ctx->input(0);
    OpInputList positions;
    OP_REQUIRES_OK(ctx, ctx->input_list("positions", &positions));
    OP_REQUIRES_OK(ctx, CheckRank("rows", rows, 2));
    OP_REQUIRES_OK(ctx, CheckPositions(positions, rows.dim_size(0)));
    const int64_t dim = rows.dim_size(1);
    IntraOpPool pool(ctx);
    for (int s = 0; s < positions.size(); ++s) {
      const int64_t n = positions[s].NumElements();
      Tensor* part;
      OP_REQUIRES_OK(ctx, ctx->allocate_output(s, TensorShape({n, dim}), &part));
      TakeRows(rows.matrix<float>().data(), positions[s].vec<int32_t>().data(), n, dim,
               part->matrix<float>().data(), &pool);
    }
  }
};

class EmbeddingStitchRowsOp : public Kernel {
 public:
  using Kernel::Kernel;

  void Run(OpKernelContext* ctx) override {
    OpInputList parts, positions, anchors;
    const Tensor* keys;
    OP_REQUIRES_OK(ctx, ctx->input_list("parts", &parts));
    OP_REQUIRES_OK(ctx, ctx->input_list("positions", &positions));
    OP_REQUIRES_OK(ctx, ctx->input("keys", &keys));
    OP_REQUIRES_OK(ctx, ctx->input_list("anchors", &anchors));
    OP_REQUIRES_OK(ctx, CheckRank("keys", *keys, 1));
    const int64_t n = keys->NumElements();
    OP_REQUIRES_OK(ctx, CheckPositions(positions, n));
    OP_REQUIRES_OK(ctx, CheckRank("parts", parts[0], 2));
    const int64_t dim = parts[0].dim_size(1);
    for (int s = 0; s < parts.size(); ++s) {
      OP_REQUIRES_OK(ctx, CheckRank("parts", parts[s], 2));
      OP_REQUIRES_OK(ctx, CheckDim("parts", parts[s], 0, positions[s].NumElements()));
      OP_REQUIRES_OK(ctx, CheckDim("parts", parts[s], 1, dim));
    }
    for (const Tensor& anchor : anchors) {
      OP_REQUIRES_OK(ctx, CheckRank("anchor", anchor, 2));
      OP_REQUIRES_OK(ctx, CheckDim("anchor", anchor, 1, dim));
    }
    Tensor* rows;
    OP_REQUIRES_OK(ctx, ctx->allocate_output(0, TensorShape({n, dim}), &rows));
    IntraOpPool pool(ctx);
    for (int s = 0; s < parts.size(); ++s) {
      PlaceRows(parts[s].matrix<float>().data(), positions[s].vec<int32_t>().data(),
                positions[s].NumElements(), dim, rows->matrix<float>().data(), &pool);
    }
  }
};

REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingPartition").Device(DEVICE_CPU),
                        EmbeddingPartitionOp);
REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingPartitionRows").Device(DEVICE_CPU),
                        EmbeddingPartitionRowsOp);
REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingStitchRows").Device(DEVICE_CPU),
                        EmbeddingStitchRowsOp);

}  // namespace sparse_emb
