// Reads a table from a checkpoint. TensorFlow's BundleReader knows where the tensors are; the bytes
// of those that lie in the file as a chunk needs them are read from there, and summed, without its
// buffers.
#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cc/kernels/adapters.h"
#include "cc/kernels/bundle_slice.h"
#include "cc/kernels/table_bundle.h"
#include "cc/lib/crc32c.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/lib/hash/crc32c.h"
#include "tensorflow/core/platform/env.h"
#include "tensorflow/core/protobuf/tensor_bundle.pb.h"
#include "tensorflow/core/util/tensor_bundle/naming.h"
#include "tensorflow/core/util/tensor_bundle/tensor_bundle.h"

namespace sparse_emb {
namespace {

using tensorflow::BundleEntryProto;
using tensorflow::BundleHeaderProto;
using tensorflow::BundleReader;
using tensorflow::DataType;
using tensorflow::RandomAccessFile;
using tensorflow::Tensor;
using tensorflow::TensorShape;
using tensorflow::TensorSlice;

// All `bytes` bytes from `offset` on.
absl::Status ReadAt(const RandomAccessFile& file, int64_t offset, int64_t bytes, char* out) {
  absl::string_view got;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"  // TensorFlow 2.18 has no other
  TF_RETURN_IF_ERROR(file.Read(offset, bytes, &got, out));
#pragma GCC diagnostic pop
  if (got.data() != out) std::copy(got.begin(), got.end(), out);
  return absl::OkStatus();
}

class Reader final : public RowSource {
 public:
  Reader(const std::string& prefix, const std::string& key)
      : prefix_(prefix),
        key_(key),
        where_(absl::StrCat("checkpoint '", prefix, "' (", key, ")")),
        bundle_(tensorflow::Env::Default(), prefix) {}

  std::string name() const override { return where_; }

  Status Begin(TableMeta* meta) override {
    SPARSE_EMB_RETURN_IF_ERROR(FromAbsl(bundle_.status(), where_));
    FindShards();
    SPARSE_EMB_RETURN_IF_ERROR(CheckShape("/table", tensorflow::DT_STRING, {}));
    Tensor table(tensorflow::DT_STRING, TensorShape({}));
    SPARSE_EMB_RETURN_IF_ERROR(FromAbsl(bundle_.Lookup(key_ + "/table", &table), where_));
    SPARSE_EMB_RETURN_IF_ERROR(
        TableMeta::Decode(table.scalar<tensorflow::tstring>()(), where_, &meta_));
    *meta = meta_;
    if (meta_.rows == 0) return {};
    const int64_t other = meta_.row_floats() - meta_.dim;
    SPARSE_EMB_RETURN_IF_ERROR(
        CheckShape("/keys", tensorflow::DT_INT64, TensorShape({meta_.rows})));
    SPARSE_EMB_RETURN_IF_ERROR(
        CheckShape("/rows", tensorflow::DT_FLOAT, TensorShape({meta_.rows, meta_.dim})));
    if (other > 0) {
      SPARSE_EMB_RETURN_IF_ERROR(
          CheckShape("/state", tensorflow::DT_FLOAT, TensorShape({meta_.rows, other})));
    }
    return FindSlices();
  }

  Status Read(RowChunk* chunk) override {
    if (next_ == slices_.size()) {
      *chunk = {};
      return {};
    }
    chunk->removed.clear();
    const auto [begin, n] = slices_[next_++];
    const int64_t dim = meta_.dim, row = meta_.row_floats(), other = row - dim;
    chunk->keys.resize(n);
    chunk->rows.resize(n * row);
    SPARSE_EMB_RETURN_IF_ERROR(Get("/keys", begin, n, {}, chunk->keys.data()));
    if (other == 0) return Get("/rows", begin, n, {dim}, chunk->rows.data());
    rows_.resize(n * dim);
    others_.resize(n * other);
    SPARSE_EMB_RETURN_IF_ERROR(Get("/rows", begin, n, {dim}, rows_.data()));
    SPARSE_EMB_RETURN_IF_ERROR(Get("/state", begin, n, {other}, others_.data()));
    float* to = chunk->rows.data();
    const float* from_rows = rows_.data();
    const float* from_others = others_.data();
    for (int64_t i = 0; i < n; ++i, from_rows += dim, from_others += other) {
      to = std::copy(from_rows, from_rows + dim, to);
      to = std::copy(from_others, from_others + other, to);
    }
    return {};
  }

 private:
  // In how many files the tensors are, if as they are in memory.
  void FindShards() {
    BundleHeaderProto header;
    bundle_.Seek(tensorflow::kHeaderEntryKey);
    const auto mine =
        tensorflow::port::kLittleEndian ? BundleHeaderProto::LITTLE : BundleHeaderProto::BIG;
    if (bundle_.Valid() && Parse(bundle_.value(), &header) && header.endianness() == mine) {
      num_shards_ = header.num_shards();
    }
  }

  Status CheckShape(const char* name, DataType want_type, const TensorShape& want) {
    if (!bundle_.Contains(key_ + name)) {
      return Error(Code::kNotFound, where_, " has no tensor ", key_, name);
    }
    DataType type;
    TensorShape shape;
    SPARSE_EMB_RETURN_IF_ERROR(
        FromAbsl(bundle_.LookupDtypeAndShape(key_ + name, &type, &shape), where_));
    if (type == want_type && shape == want) return {};
    return Error(Code::kDataLoss, where_, ": ", key_, name, " must be ",
                 tensorflow::DataTypeString(want_type), " ", want.DebugString(), ", got ",
                 tensorflow::DataTypeString(type), " ", shape.DebugString());
  }

  // The slices in which the rows were written: reading others would read one more than once.
  Status FindSlices() {
    std::vector<TensorSlice> slices;
    SPARSE_EMB_RETURN_IF_ERROR(
        FromAbsl(bundle_.LookupTensorSlices(key_ + "/keys", &slices), where_));
    for (const TensorSlice& slice : slices) {
      if (slice.IsFullAt(0)) {
        slices_.emplace_back(0, meta_.rows);
      } else {
        slices_.emplace_back(slice.start(0), slice.length(0));
      }
    }
    if (slices.empty()) {  // a checkpoint that was written anew by other means
      constexpr int64_t kPart = 1 << 16;
      for (int64_t begin = 0; begin < meta_.rows; begin += kPart) {
        slices_.emplace_back(begin, std::min(kPart, meta_.rows - begin));
      }
    }
    std::sort(slices_.begin(), slices_.end());
    int64_t rows = 0;
    for (const auto& [begin, n] : slices_) {
      if (begin != rows) break;
      rows += n;
    }
    if (rows == meta_.rows) return {};
    return Error(Code::kDataLoss, where_, " lacks rows from ", rows, " on of ", meta_.rows);
  }

  // Rows [begin, begin + n) of a tensor.
  template <class T>
  Status Get(const char* name, int64_t begin, int64_t n, std::vector<int64_t> row_shape, T* out) {
    const int dims = 1 + row_shape.size();
    const int64_t bytes = n * (row_shape.empty() ? 1 : row_shape[0]) * sizeof(T);
    BundleEntryProto entry;
    if (Find(BundleSliceKey(key_ + name, begin, n, dims, meta_.rows), bytes, &entry)) {
      return GetBytes(entry, reinterpret_cast<char*>(out));
    }
    // It lies there in another way: in other parts, or in the other byte order.
    TensorShape shape({n});
    for (const int64_t size : row_shape) shape.AddDim(size);
    Tensor part(tensorflow::DataTypeToEnum<T>::value, shape);
    SPARSE_EMB_RETURN_IF_ERROR(
        FromAbsl(bundle_.LookupSlice(key_ + name, BundleSlice(begin, n, dims), &part), where_));
    std::copy_n(static_cast<const T*>(part.data()), part.NumElements(), out);
    return {};
  }

  // Whether the file has so many bytes of the tensor as they are in memory.
  bool Find(const std::string& key, int64_t bytes, BundleEntryProto* entry) {
    if (num_shards_ == 0) return false;
    bundle_.Seek(key);
    return bundle_.Valid() && bundle_.key() == key && Parse(bundle_.value(), entry) &&
           entry->slices().empty() && entry->size() == bytes;
  }

  template <class Proto>
  static bool Parse(absl::string_view bytes, Proto* out) {
    return out->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
  }

  Status GetBytes(const BundleEntryProto& entry, char* out) {
    const std::string path = tensorflow::DataFilename(prefix_, entry.shard_id(), num_shards_);
    std::unique_ptr<RandomAccessFile>& file = files_[entry.shard_id()];
    if (file == nullptr) {
      SPARSE_EMB_RETURN_IF_ERROR(
          FromAbsl(tensorflow::Env::Default()->NewRandomAccessFile(path, &file), where_));
    }
    SPARSE_EMB_RETURN_IF_ERROR(FromAbsl(ReadAt(*file, entry.offset(), entry.size(), out), where_));
    if (Crc32c(out, entry.size()) == tensorflow::crc32c::Unmask(entry.crc32c())) return {};
    return Error(Code::kDataLoss, where_, ": Checksum does not match: ", entry.size(),
                 " bytes of '", path, "' from byte ", entry.offset(), " on are damaged");
  }

  const std::string prefix_, key_, where_;
  BundleReader bundle_;
  int num_shards_ = 0;  // 0: unknown, or of the other byte order
  std::map<int, std::unique_ptr<RandomAccessFile>> files_;  // by shard
  TableMeta meta_;
  std::vector<std::pair<int64_t, int64_t>> slices_;  // first row, rows
  size_t next_ = 0;
  std::vector<float> rows_, others_;
};

}  // namespace

std::unique_ptr<RowSource> MakeBundleReader(const std::string& prefix, const std::string& key) {
  return std::make_unique<Reader>(prefix, key);
}

}  // namespace sparse_emb
