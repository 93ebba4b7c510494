// A table in a file of TensorFlow's checkpoint format, written and read a part at a time.
#ifndef TF_SPARSE_EMB_CC_KERNELS_TABLE_BUNDLE_H_
#define TF_SPARSE_EMB_CC_KERNELS_TABLE_BUNDLE_H_

#include <memory>
#include <string>

#include "cc/lib/table_stream.h"

namespace sparse_emb {

// Tensors of the names <key>/table (TableMeta::Encode's string), <key>/keys int64 [V], <key>/rows
// float32 [V, D] and <key>/state float32 [V, S'], all but the embedding of a row as it lies in the
// table. Those of V rows are partitioned, one slice a chunk; a tensor without elements is left out.
// Each slice has a checksum, which is looked at when the slice is read. The files are as
// TensorFlow's own writer would make them, and those that it has written are read.
std::unique_ptr<RowSink> MakeBundleWriter(const std::string& prefix, const std::string& key);
std::unique_ptr<RowSource> MakeBundleReader(const std::string& prefix, const std::string& key);

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_KERNELS_TABLE_BUNDLE_H_
