// Writes a table as a checkpoint without TensorFlow's BundleWriter, which copies, sums and writes
// on one thread. The data file is the bytes of the tensors, one after the other; the index, which
// says where each is and what its checksum must be, is a table of protos, and TensorFlow's own code
// writes that.
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "cc/kernels/adapters.h"
#include "cc/kernels/bundle_slice.h"
#include "cc/kernels/table_bundle.h"
#include "cc/lib/crc32c.h"
#include "tensorflow/core/framework/tensor_shape.h"
#include "tensorflow/core/framework/versions.pb.h"
#include "tensorflow/core/lib/core/coding.h"
#include "tensorflow/core/lib/hash/crc32c.h"
#include "tensorflow/core/lib/io/table_builder.h"
#include "tensorflow/core/platform/env.h"
#include "tensorflow/core/platform/path.h"
#include "tensorflow/core/protobuf/tensor_bundle.pb.h"
#include "tensorflow/core/util/tensor_bundle/naming.h"
#include "tensorflow/core/util/tensor_bundle/tensor_bundle.h"

namespace sparse_emb {
namespace {

using tensorflow::BundleEntryProto;
using tensorflow::BundleHeaderProto;
using tensorflow::DataType;
using tensorflow::TensorShape;

// Removes what a save to `prefix` that was killed has left, and makes the folder.
absl::Status Clear(const std::string& prefix) {
  tensorflow::Env* env = tensorflow::Env::Default();
  const std::string folder(tensorflow::io::Dirname(prefix));
  const std::string begin = absl::StrCat(tensorflow::io::Basename(prefix), ".");
  std::vector<std::string> names;
  if (!env->GetChildren(folder, &names).ok()) return env->RecursivelyCreateDir(folder);
  for (const std::string& name : names) {
    if (absl::StartsWith(name, begin)) {
      env->DeleteFile(tensorflow::io::JoinPath(folder, name)).IgnoreError();
    }
  }
  return absl::OkStatus();
}

// Of bytes that follow others whose checksum is `before`.
uint32_t CrcOf(absl::string_view bytes, uint32_t before = 0) {
  return Crc32c(bytes.data(), bytes.size(), before);
}

template <class T>
absl::string_view BytesOf(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

// The rows of a chunk as two tensors.
struct SplitRows {
  std::vector<float> rows, others;

  void Split(const RowChunk& chunk, int64_t dim, int64_t width) {
    rows.resize(chunk.n() * dim);
    others.resize(chunk.n() * (width - dim));
    float* row = rows.data();
    float* other = others.data();
    const float* const end = chunk.rows.data() + chunk.n() * width;
    for (const float* from = chunk.rows.data(); from != end; from += width) {
      row = std::copy(from, from + dim, row);
      other = std::copy(from + dim, from + width, other);
    }
  }
};

class Writer final : public RowSink {
 public:
  Writer(const std::string& prefix, const std::string& key)
      : prefix_(prefix), key_(key), where_(absl::StrCat("checkpoint '", prefix, "'")) {}

  ~Writer() override {
    if (finished_ || file_ == nullptr) return;
    file_->Close().IgnoreError();
    tensorflow::Env::Default()->DeleteFile(DataPath()).IgnoreError();
  }

  Status Begin(const TableMeta& meta) override {
    meta_ = meta;
    SPARSE_EMB_RETURN_IF_ERROR(Written(Clear(prefix_)));
    SPARSE_EMB_RETURN_IF_ERROR(
        Written(tensorflow::Env::Default()->NewWritableFile(DataPath(), &file_)));
    // A string as TensorFlow writes it: its length, a checksum of that, and its bytes.
    const std::string bytes = meta.Encode();
    const uint32_t length = static_cast<uint32_t>(bytes.size());
    const uint32_t length_crc = Crc32c(&length, sizeof(length));
    const uint32_t masked = tensorflow::crc32c::Mask(length_crc);
    std::string tensor;
    tensorflow::core::PutVarint64(&tensor, length);
    tensor.append(reinterpret_cast<const char*>(&masked), sizeof(masked));
    tensor += bytes;
    const uint32_t crc = CrcOf(bytes, Crc32c(&masked, sizeof(masked), length_crc));
    return Append(key_ + "/table", tensorflow::DT_STRING, TensorShape({}), tensor, crc);
  }

  Status Write(const RowChunk& chunk, const Turn& turn) override {
    const int64_t dim = meta_.dim, other = meta_.row_floats() - dim;
    SplitRows split = TakeSpare();
    if (other > 0) split.Split(chunk, dim, dim + other);
    const absl::string_view keys = BytesOf(chunk.keys);
    const absl::string_view rows = BytesOf(other > 0 ? split.rows : chunk.rows);
    const absl::string_view others = BytesOf(split.others);
    const uint32_t key_crc = CrcOf(keys), row_crc = CrcOf(rows), other_crc = CrcOf(others);
    SPARSE_EMB_RETURN_IF_ERROR(turn.Wait());
    const int64_t n = chunk.n();
    SPARSE_EMB_RETURN_IF_ERROR(AppendRows("/keys", tensorflow::DT_INT64, {}, n, keys, key_crc));
    SPARSE_EMB_RETURN_IF_ERROR(AppendRows("/rows", tensorflow::DT_FLOAT, {dim}, n, rows, row_crc));
    if (other > 0) {
      SPARSE_EMB_RETURN_IF_ERROR(
          AppendRows("/state", tensorflow::DT_FLOAT, {other}, n, others, other_crc));
    }
    written_ += n;
    const std::lock_guard alone(spares_mutex_);
    spares_.push_back(std::move(split));
    return {};
  }

  Status End() override {
    SPARSE_EMB_RETURN_IF_ERROR(Written(file_->Close()));
    SPARSE_EMB_RETURN_IF_ERROR(Written(WriteIndex()));
    finished_ = true;
    return {};
  }

 private:
  std::string DataPath() const { return tensorflow::DataFilename(prefix_, 0, 1); }

  // Memory of a chunk before, because new memory comes fresh from the system each time.
  SplitRows TakeSpare() {
    const std::lock_guard alone(spares_mutex_);
    if (spares_.empty()) return {};
    SplitRows spare = std::move(spares_.back());
    spares_.pop_back();
    return spare;
  }

  // The next n rows of the tensor `name`.
  Status AppendRows(const char* name, DataType type, std::vector<int64_t> row_shape, int64_t n,
                    absl::string_view bytes, uint32_t crc) {
    const std::string full = key_ + name;
    const int dims = 1 + row_shape.size();
    TensorShape shape({n}), full_shape({meta_.rows});
    for (const int64_t size : row_shape) {
      shape.AddDim(size);
      full_shape.AddDim(size);
    }
    if (n < meta_.rows) {
      BundleEntryProto& whole = entries_[full];
      whole.set_dtype(type);
      full_shape.AsProto(whole.mutable_shape());
      BundleSlice(written_, n, dims).AsProto(whole.add_slices());
    }
    return Append(BundleSliceKey(full, written_, n, dims, meta_.rows), type, shape, bytes, crc);
  }

  Status Append(const std::string& key, DataType type, const TensorShape& shape,
                absl::string_view bytes, uint32_t crc) {
    BundleEntryProto& entry = entries_[key];
    entry.set_dtype(type);
    shape.AsProto(entry.mutable_shape());
    entry.set_offset(size_);
    entry.set_size(bytes.size());
    entry.set_crc32c(tensorflow::crc32c::Mask(crc));
    size_ += bytes.size();
    return Written(file_->Append(bytes));
  }

  absl::Status WriteIndex() const {
    std::unique_ptr<tensorflow::WritableFile> file;
    TF_RETURN_IF_ERROR(
        tensorflow::Env::Default()->NewWritableFile(tensorflow::MetaFilename(prefix_), &file));
    tensorflow::table::Options options;
    options.compression = tensorflow::table::kNoCompression;
    tensorflow::table::TableBuilder index(options, file.get());
    BundleHeaderProto header;
    header.set_num_shards(1);
    header.set_endianness(tensorflow::port::kLittleEndian ? BundleHeaderProto::LITTLE
                                                          : BundleHeaderProto::BIG);
    header.mutable_version()->set_producer(tensorflow::kTensorBundleVersion);
    header.mutable_version()->set_min_consumer(tensorflow::kTensorBundleMinConsumer);
    index.Add(tensorflow::kHeaderEntryKey, header.SerializeAsString());
    for (const auto& [key, entry] : entries_) index.Add(key, entry.SerializeAsString());
    TF_RETURN_IF_ERROR(index.Finish());
    return file->Close();
  }

  Status Written(const absl::Status& status) const {
    const Status written = FromAbsl(status, where_);
    // TensorFlow's code for a file that is larger than the system allows.
    return absl::IsOutOfRange(status) ? Error(Code::kResourceExhausted, written.message) : written;
  }

  const std::string prefix_, key_, where_;
  std::unique_ptr<tensorflow::WritableFile> file_;
  TableMeta meta_;
  std::map<std::string, BundleEntryProto> entries_;
  int64_t size_ = 0;     // of the data file
  int64_t written_ = 0;  // rows
  bool finished_ = false;
  std::mutex spares_mutex_;
  std::vector<SplitRows> spares_;
};

}  // namespace

std::unique_ptr<RowSink> MakeBundleWriter(const std::string& prefix, const std::string& key) {
  return std::make_unique<Writer>(prefix, key);
}

}  // namespace sparse_emb
