#include "cc/kernels/table_bundle.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/framework/tensor_slice.h"
#include "tensorflow/core/platform/env.h"
#include "tensorflow/core/platform/path.h"
#include "tensorflow/core/util/tensor_bundle/tensor_bundle.h"

namespace sparse_emb {
namespace {

using tensorflow::BundleReader;
using tensorflow::BundleWriter;
using tensorflow::DataType;
using tensorflow::Tensor;
using tensorflow::TensorShape;
using tensorflow::TensorSlice;

Status FromAbsl(const absl::Status& status, const std::string& where) {
  if (status.ok()) return {};
  Code code = Code::kUnavailable;
  if (absl::IsDataLoss(status) || absl::IsOutOfRange(status)) code = Code::kDataLoss;
  if (absl::IsNotFound(status)) code = Code::kNotFound;
  if (absl::IsInvalidArgument(status)) code = Code::kInvalidArgument;
  if (absl::IsResourceExhausted(status)) code = Code::kResourceExhausted;
  return Error(code, where, ": ", std::string(status.message()));
}

// Rows [begin, begin + n) of a tensor [V] or [V, width].
TensorSlice Slice(int64_t begin, int64_t n, int dims) {
  TensorSlice slice(dims);
  slice.set_start(0, begin);
  slice.set_length(0, n);
  return slice;
}

// `prefix`, having removed what a save to it that was killed has left: TensorFlow writes to files
// of random names first, and would never remove a folder that has old ones.
const std::string& Cleared(const std::string& prefix) {
  tensorflow::Env* env = tensorflow::Env::Default();
  const std::string folder(tensorflow::io::Dirname(prefix));
  const std::string begin = absl::StrCat(tensorflow::io::Basename(prefix), ".");
  std::vector<std::string> names;
  if (!env->GetChildren(folder, &names).ok()) return prefix;
  for (const std::string& name : names) {
    if (absl::StartsWith(name, begin)) {
      env->DeleteFile(tensorflow::io::JoinPath(folder, name)).IgnoreError();
    }
  }
  return prefix;
}

template <class T>
T* DataOf(Tensor* tensor) {
  return static_cast<T*>(tensor->data());
}

// The tensors of a chunk. They are kept from one to the next, because their memory would come fresh
// from the system each time.
struct Parts {
  Tensor keys, rows, state;

  void Resize(int64_t n, const TableMeta& meta) {
    if (keys.dims() == 1 && keys.dim_size(0) == n) return;
    keys = Tensor(tensorflow::DT_INT64, {n});
    rows = Tensor(tensorflow::DT_FLOAT, {n, meta.dim});
    state = Tensor(tensorflow::DT_FLOAT, {n, meta.row_floats() - meta.dim});
  }
};

class Writer final : public RowSink {
 public:
  Writer(const std::string& prefix, const std::string& key)
      : key_(key),
        where_(absl::StrCat("checkpoint '", prefix, "'")),
        bundle_(tensorflow::Env::Default(), Cleared(prefix)) {}

  Status Begin(const TableMeta& meta) override {
    meta_ = meta;
    SPARSE_EMB_RETURN_IF_ERROR(Written(bundle_.status()));
    Tensor table(tensorflow::DT_STRING, TensorShape({}));
    table.scalar<tensorflow::tstring>()() = meta.Encode();
    return Written(bundle_.Add(key_ + "/table", table));
  }

  Status Write(const RowChunk& chunk, const Turn& turn) override {
    SPARSE_EMB_RETURN_IF_ERROR(turn.Wait());
    const int64_t n = chunk.n(), dim = meta_.dim, row = meta_.row_floats(), other = row - dim;
    parts_.Resize(n, meta_);
    auto& [keys, rows, state] = parts_;
    std::copy(chunk.keys.begin(), chunk.keys.end(), DataOf<int64_t>(&keys));
    float* to_rows = DataOf<float>(&rows);
    float* to_state = DataOf<float>(&state);
    for (const float* from = chunk.rows.data(); from != chunk.rows.data() + n * row; from += row) {
      to_rows = std::copy(from, from + dim, to_rows);
      to_state = std::copy(from + dim, from + row, to_state);
    }
    SPARSE_EMB_RETURN_IF_ERROR(Add("/keys", TensorShape({meta_.rows}), keys));
    SPARSE_EMB_RETURN_IF_ERROR(Add("/rows", TensorShape({meta_.rows, dim}), rows));
    if (other > 0) {
      SPARSE_EMB_RETURN_IF_ERROR(Add("/state", TensorShape({meta_.rows, other}), state));
    }
    written_ += n;
    return {};
  }

  Status End() override { return Written(bundle_.Finish()); }

 private:
  Status Add(const char* name, const TensorShape& shape, const Tensor& part) {
    const TensorSlice slice = Slice(written_, part.dim_size(0), shape.dims());
    return Written(bundle_.AddSlice(key_ + name, shape, slice, part));
  }

  Status Written(const absl::Status& status) const {
    const Status written = FromAbsl(status, where_);
    // TensorFlow's code for a file that is larger than the system allows.
    return absl::IsOutOfRange(status) ? Error(Code::kResourceExhausted, written.message) : written;
  }

  const std::string key_;
  const std::string where_;
  BundleWriter bundle_;
  TableMeta meta_;
  Parts parts_;
  int64_t written_ = 0;
};

class Reader final : public RowSource {
 public:
  Reader(const std::string& prefix, const std::string& key)
      : key_(key),
        where_(absl::StrCat("checkpoint '", prefix, "' (", key, ")")),
        bundle_(tensorflow::Env::Default(), prefix) {}

  std::string name() const override { return where_; }

  Status Begin(TableMeta* meta) override {
    SPARSE_EMB_RETURN_IF_ERROR(FromAbsl(bundle_.status(), where_));
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
    parts_.Resize(n, meta_);
    auto& [keys, rows, state] = parts_;
    SPARSE_EMB_RETURN_IF_ERROR(Get("/keys", begin, &keys));
    SPARSE_EMB_RETURN_IF_ERROR(Get("/rows", begin, &rows));
    if (other > 0) SPARSE_EMB_RETURN_IF_ERROR(Get("/state", begin, &state));
    chunk->keys.assign(DataOf<int64_t>(&keys), DataOf<int64_t>(&keys) + n);
    chunk->rows.resize(n * row);
    float* to = chunk->rows.data();
    const float* from_rows = DataOf<float>(&rows);
    const float* from_state = DataOf<float>(&state);
    for (int64_t i = 0; i < n; ++i, from_rows += dim, from_state += other) {
      to = std::copy(from_rows, from_rows + dim, to);
      to = std::copy(from_state, from_state + other, to);
    }
    return {};
  }

 private:
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

  Status Get(const char* name, int64_t begin, Tensor* out) {
    const TensorSlice slice = Slice(begin, out->dim_size(0), out->dims());
    return FromAbsl(bundle_.LookupSlice(key_ + name, slice, out), where_);
  }

  const std::string key_;
  const std::string where_;
  BundleReader bundle_;
  TableMeta meta_;
  std::vector<std::pair<int64_t, int64_t>> slices_;  // first row, rows
  Parts parts_;
  size_t next_ = 0;
};

}  // namespace

std::unique_ptr<RowSink> MakeBundleWriter(const std::string& prefix, const std::string& key) {
  return std::make_unique<Writer>(prefix, key);
}

std::unique_ptr<RowSource> MakeBundleReader(const std::string& prefix, const std::string& key) {
  return std::make_unique<Reader>(prefix, key);
}

}  // namespace sparse_emb
