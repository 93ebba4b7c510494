// Tables as blocks of bytes, for files that Python alone can write and read.
#include <future>
#include <memory>
#include <string>
#include <utility>

#include "cc/kernels/adapters.h"
#include "cc/kernels/embedding_table.h"
#include "cc/lib/block_queue.h"
#include "cc/lib/block_stream.h"
#include "cc/lib/table_file.h"
#include "tensorflow/core/framework/allocation_description.pb.h"

namespace sparse_emb {

using tensorflow::AllocationDescription;
using tensorflow::DEVICE_CPU;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::ResourceBase;
using tensorflow::ResourceHandle;
using tensorflow::Tensor;
using tensorflow::TensorShape;
using tensorflow::core::RefCountPtr;

// A block as the memory of a tensor.
class BlockBuffer final : public tensorflow::TensorBuffer {
 public:
  explicit BlockBuffer(Block block)
      : TensorBuffer(const_cast<char*>(block.data.get())), block_(std::move(block)) {}

  size_t size() const override { return block_.size; }
  TensorBuffer* root_buffer() override { return this; }
  void FillAllocationDescription(AllocationDescription* proto) const override {
    proto->set_requested_bytes(block_.size);
    proto->set_allocator_name("sparse_emb");
  }

 private:
  const Block block_;
};

// What a thread does on one side of a queue of blocks. The table is locked as long as it takes, so
// that who goes away ends it.
class BlockTask : public ResourceBase {
 public:
  BlockTask(OpKernelContext* ctx, RefCountPtr<EmbeddingTable> table)
      : table_(std::move(table)), pool_(ctx) {}

 protected:
  // The last thing that a constructor does, as its opposite is the first in the destructor.
  template <class Fn>
  void Start(const Fn& fn) {
    done_ = std::async(std::launch::async, [this, fn] {
      CanThrow();
      // The other side must not wait for ever, whatever ends this one.
      struct Stopper {
        BlockQueue* queue;
        ~Stopper() { queue->Stop(); }
      } stopper = {&queue_};
      return fn();
    });
  }
  void Stop() {
    queue_.Stop();
    if (done_.valid()) done_.wait();
  }

  const RefCountPtr<EmbeddingTable> table_;
  IntraOpPool pool_;
  BlockQueue queue_;
  std::shared_future<Status> done_;
};

class TableSave final : public BlockTask {
 public:
  TableSave(OpKernelContext* ctx, RefCountPtr<EmbeddingTable> table, int64_t block_bytes)
      : BlockTask(ctx, std::move(table)) {
    Start([this, block_bytes] {
      BlockSink sink(&queue_, block_bytes);
      const auto writer = MakeTableBytesWriter(&sink);
      SPARSE_EMB_RETURN_IF_ERROR((*table_)->Save(/*with_state=*/true, writer.get(), &pool_));
      return sink.End();
    });
  }
  ~TableSave() override { Stop(); }

  std::string DebugString() const override { return "a save of an " + table_->DebugString(); }

  // The next block; an empty one after the last.
  Status Next(Block* block) {
    return queue_.Take(block) && block->size > 0 ? Status() : done_.get();
  }
};

class TableLoad final : public BlockTask {
 public:
  TableLoad(OpKernelContext* ctx, RefCountPtr<EmbeddingTable> table, std::string source,
            bool only_check)
      : BlockTask(ctx, std::move(table)) {
    Start([this, source = std::move(source), only_check] {
      BlockSource bytes(&queue_, source);
      const auto reader = MakeTableBytesReader(&bytes, source);
      return only_check ? (*table_)->CheckSource(reader.get(), &report_)
                        : (*table_)->Load(reader.get(), &pool_, &report_);
    });
  }
  ~TableLoad() override { Stop(); }

  std::string DebugString() const override { return "a load of an " + table_->DebugString(); }

  bool Give(Block block) { return queue_.Give(std::move(block)); }

  // After the last block.
  Status Finish(std::string* report) {
    queue_.End();
    SPARSE_EMB_RETURN_IF_ERROR(done_.get());
    *report = report_.Json();
    return {};
  }

 private:
  LoadReport report_;  // when it is done
};

template <class Task>
absl::Status GetTask(OpKernelContext* ctx, RefCountPtr<Task>* out) {
  return tensorflow::LookupResource(ctx, tensorflow::HandleFromInput(ctx, 0), out);
}

// Output 0 = a handle with which the task goes.
template <class Task, class... Arguments>
absl::Status StartTask(OpKernelContext* ctx, const Arguments&... arguments) {
  RefCountPtr<EmbeddingTable> table;
  TF_RETURN_IF_ERROR(GetTable(ctx, &table));
  Tensor* handle;
  tensorflow::AllocatorAttributes on_host;
  on_host.set_on_host(true);
  TF_RETURN_IF_ERROR(ctx->allocate_output(0, TensorShape({}), &handle, on_host));
  handle->scalar<ResourceHandle>()() = ResourceHandle::MakeRefCountingHandle(
      new Task(ctx, std::move(table), arguments...), ctx->device()->name());
  return absl::OkStatus();
}

class EmbeddingTableStartSaveOp : public Kernel {
 public:
  explicit EmbeddingTableStartSaveOp(OpKernelConstruction* ctx) : Kernel(ctx) {
    OP_REQUIRES_OK(ctx, ctx->GetAttr("block_bytes", &block_bytes_));
  }

  void Run(OpKernelContext* ctx) override {
    OP_REQUIRES_OK(ctx, StartTask<TableSave>(ctx, block_bytes_));
  }

 private:
  int64_t block_bytes_;
};

class EmbeddingTableNextBlockOp : public Kernel {
 public:
  using Kernel::Kernel;

  void Run(OpKernelContext* ctx) override {
    RefCountPtr<TableSave> save;
    OP_REQUIRES_OK(ctx, GetTask(ctx, &save));
    Block block;
    OP_REQUIRES_OK(ctx, ToAbsl(save->Next(&block)));
    const TensorShape shape({block.size});
    const RefCountPtr<BlockBuffer> buffer(new BlockBuffer(std::move(block)));
    ctx->set_output(0, Tensor(tensorflow::DT_UINT8, shape, buffer.get()));
  }
};

class EmbeddingTableStartLoadOp : public Kernel {
 public:
  explicit EmbeddingTableStartLoadOp(OpKernelConstruction* ctx) : Kernel(ctx) {
    OP_REQUIRES_OK(ctx, ctx->GetAttr("only_check", &only_check_));
  }

  void Run(OpKernelContext* ctx) override {
    const Tensor& source = ctx->input(1);
    OP_REQUIRES_OK(ctx, CheckRank("source", source, 0));
    const std::string name = source.scalar<tensorflow::tstring>()();
    OP_REQUIRES_OK(ctx, StartTask<TableLoad>(ctx, name, only_check_));
  }

 private:
  bool only_check_;
};

class EmbeddingTableGiveBlockOp : public Kernel {
 public:
  using Kernel::Kernel;

  void Run(OpKernelContext* ctx) override {
    RefCountPtr<TableLoad> load;
    OP_REQUIRES_OK(ctx, GetTask(ctx, &load));
    OP_REQUIRES_OK(ctx, CheckRank("block", ctx->input(1), 1));
    Tensor* wanted;
    OP_REQUIRES_OK(ctx, ctx->allocate_output(0, TensorShape({}), &wanted));
    // Not copied: the tensor is kept until its bytes have been read.
    const auto block = std::make_shared<Tensor>(ctx->input(1));
    const char* data = block->tensor_data().data();
    wanted->scalar<bool>()() = load->Give({{block, data}, block->NumElements()});
  }
};

class EmbeddingTableFinishLoadOp : public Kernel {
 public:
  using Kernel::Kernel;

  void Run(OpKernelContext* ctx) override {
    RefCountPtr<TableLoad> load;
    OP_REQUIRES_OK(ctx, GetTask(ctx, &load));
    Tensor* report;
    OP_REQUIRES_OK(ctx, ctx->allocate_output(0, TensorShape({}), &report));
    std::string json;
    OP_REQUIRES_OK(ctx, ToAbsl(load->Finish(&json)));
    report->scalar<tensorflow::tstring>()() = json;
  }
};

REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingTableStartSave").Device(DEVICE_CPU),
                        EmbeddingTableStartSaveOp);
REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingTableNextBlock").Device(DEVICE_CPU),
                        EmbeddingTableNextBlockOp);
REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingTableStartLoad").Device(DEVICE_CPU),
                        EmbeddingTableStartLoadOp);
REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingTableGiveBlock").Device(DEVICE_CPU),
                        EmbeddingTableGiveBlockOp);
REGISTER_KERNEL_BUILDER(Name("SparseEmb>EmbeddingTableFinishLoad").Device(DEVICE_CPU),
                        EmbeddingTableFinishLoadOp);

}  // namespace sparse_emb
