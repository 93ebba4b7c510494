#include <algorithm>
#include <atomic>

#include "cc/kernels/adapters.h"
#include "cc/kernels/input_splits.h"
#include "cc/kernels/lookup_tables.h"
#include "cc/kernels/unique_outputs.h"
#include "cc/lib/dedup_lookup.h"
#include "cc/lib/key_dedup.h"
#include "cc/ops/feature_attrs.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace sparse_emb {

using tensorflow::DEVICE_CPU;
using tensorflow::DT_FLOAT;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;

// Room for rows that are read before it is known how many there will be. It saves time and is no
// need: there is none where there is no memory for it.
class RoomAhead {
 public:
  RoomAhead(OpKernelContext* ctx, int64_t size, int64_t dim) {
    TensorShape shape;
    if (size == 0 || !TensorShape::BuildTensorShape({size, dim}, &shape).ok()) return;
    if (!ctx->allocate_temp(DT_FLOAT, shape, &room_).ok()) return;
    rows_ = {room_.matrix<float>().data(), size};
  }

  const RowsAhead& rows() const { return rows_; }
  Tensor First(int64_t size) const { return room_.Slice(0, size); }

 private:
  Tensor room_;
  RowsAhead rows_ = {nullptr, 0};
};

class EmbeddingDedupLookupOp : public Kernel {
 public:
  explicit EmbeddingDedupLookupOp(OpKernelConstruction* ctx) : Kernel(ctx) {
    int num_tables;
    OP_REQUIRES_OK(ctx, ctx->GetAttr("num_tables", &num_tables));
    OP_REQUIRES_OK(ctx, features_.Get(ctx, "feature_tables"));
    OP_REQUIRES_OK(ctx, features_.CheckNumTables(num_tables));
    OP_REQUIRES_OK(ctx, attrs_.Get(ctx));
  }

  void Run(OpKernelContext* ctx) override {
    const Tensor& keys = ctx->input(static_cast<int>(features_.num_tables));
    LookupTables tables;
    OP_REQUIRES_OK(ctx, tables.Get(ctx, features_.num_tables));
    UniqueOutputs unique;
    OP_REQUIRES_OK(ctx, unique.Allocate(ctx, keys, features_.num_tables));
    InputSplits splits;
    OP_REQUIRES_OK(ctx,
                   splits.Get(ctx, "feature_splits", features_.tables.size(), keys.NumElements()));
    IntraOpPool pool(ctx);
    if (features_.num_tables == 1) {
      OP_REQUIRES_OK(ctx, OneTable(ctx, keys, tables, &unique, &pool));
    } else {
      OP_REQUIRES_OK(ctx, ManyTables(ctx, keys, splits, tables, &unique, &pool));
    }
  }

 private:
  absl::Status OneTable(OpKernelContext* ctx, const Tensor& keys, const LookupTables& tables,
                        UniqueOutputs* unique, WorkerPool* pool) {
    const int64_t n = keys.NumElements(), dim = tables.dim();
    const RoomAhead room(ctx, std::min(n, expected_floats_.load(std::memory_order_relaxed) / dim),
                         dim);
    int64_t* const table_splits = unique->table_splits();
    absl::Status allocated;
    const auto place_rows = [&](int64_t num_unique) -> float* {
      table_splits[0] = 0;
      table_splits[1] = num_unique;
      unique->SetUnique(ctx, num_unique);
      float* rows = room.rows().rows;
      if (0 < num_unique && num_unique <= room.rows().size) {
        ctx->set_output(4, room.First(num_unique));
      } else {
        Tensor* out;
        allocated = AllocateOutput(ctx, 4, {num_unique, dim}, &out);
        if (!allocated.ok()) return nullptr;
        rows = out->matrix<float>().data();
      }
      expected_floats_.store((num_unique + num_unique / 8) * dim, std::memory_order_relaxed);
      return rows;
    };
    const Status status =
        DedupLookup(keys.vec<int64_t>().data(), n, unique->room(), tables.table(0), attrs_.insert,
                    attrs_.missing, room.rows(), place_rows, pool);
    return allocated.ok() ? ToAbsl(status) : allocated;
  }

  absl::Status ManyTables(OpKernelContext* ctx, const Tensor& keys,
                          const InputSplits& feature_splits, const LookupTables& tables,
                          UniqueOutputs* unique, WorkerPool* pool) {
    const UniqueOut& room = unique->room();
    const int64_t num_unique =
        DedupKeysByTable(keys.vec<int64_t>().data(), feature_splits.data(), features_.tables.data(),
                         features_.tables.size(), features_.num_tables, room.keys, room.inverse,
                         room.counts, unique->table_splits(), pool);
    unique->SetUnique(ctx, num_unique);
    Tensor* rows;
    TF_RETURN_IF_ERROR(AllocateOutput(ctx, 4, {num_unique, tables.dim()}, &rows));
    return tables.Lookup(room.keys, TableSplits(unique->table_splits(), features_.num_tables),
                         attrs_, rows->matrix<float>().data(), pool);
  }

  KeyDedupAttrs features_;
  LookupAttrs attrs_;
  // What the rows of the next batch may take: an eighth more than those of the last. So many can be
  // read before U is known. (Not their number: in eager mode a kernel serves tables of any width.)
  std::atomic<int64_t> expected_floats_{0};
};

REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingDedupLookup").Device(DEVICE_CPU),
                        EmbeddingDedupLookupOp);

}  // namespace sparse_emb
