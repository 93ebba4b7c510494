// The table as a TensorFlow resource.
#ifndef TF_SPARSE_EMB_CC_KERNELS_EMBEDDING_TABLE_H_
#define TF_SPARSE_EMB_CC_KERNELS_EMBEDDING_TABLE_H_

#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cc/kernels/adapters.h"
#include "cc/lib/table.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/resource_base.h"
#include "tensorflow/core/framework/resource_mgr.h"

namespace sparse_emb {

class EmbeddingTable final : public tensorflow::ResourceBase {
 public:
  explicit EmbeddingTable(std::unique_ptr<Table> table) : table_(std::move(table)) {}

  Table* get() const { return table_.get(); }
  Table* operator->() const { return table_.get(); }

  std::string DebugString() const override {
    return absl::StrCat("embedding table '", table_->options().name, "' with ", table_->Size(),
                        " rows");
  }
  int64_t MemoryUsed() const override { return table_->MemoryBytes(); }

 private:
  const std::unique_ptr<Table> table_;
};

// The table of an input.
inline absl::Status GetTable(tensorflow::OpKernelContext* ctx,
                             tensorflow::core::RefCountPtr<EmbeddingTable>* out, int input = 0) {
  return tensorflow::LookupResource(ctx, tensorflow::HandleFromInput(ctx, input), out);
}

// The attributes server and num_servers.
inline absl::Status GetShare(tensorflow::OpKernelConstruction* ctx, Share* out) {
  TF_RETURN_IF_ERROR(ctx->GetAttr("server", &out->server));
  TF_RETURN_IF_ERROR(ctx->GetAttr("num_servers", &out->num_servers));
  if (out->server < out->num_servers) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "server must be less than num_servers = ", out->num_servers, ", got ", out->server));
}

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_KERNELS_EMBEDDING_TABLE_H_
