#include "cc/lib/table_stream.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <sstream>
#include <type_traits>

namespace sparse_emb {
namespace {

// Fields in the order in which Fields() names them: numbers as they lie in memory (a file says in
// which byte order), strings and lists behind their length.
class Encoder {
 public:
  template <class T>
  void operator()(const char*, const T& value) {
    if constexpr (std::is_arithmetic_v<T>) {
      out_.append(reinterpret_cast<const char*>(&value), sizeof(value));
    } else {
      const uint64_t size = value.size();
      (*this)("", size);
      out_.append(reinterpret_cast<const char*>(value.data()), size * sizeof(*value.data()));
    }
  }
  std::string&& Take() { return std::move(out_); }

 private:
  std::string out_;
};

class Decoder {
 public:
  explicit Decoder(const std::string& bytes) : at_(bytes.data()), left_(bytes.size()) {}

  template <class T>
  void operator()(const char*, T& value) {
    if constexpr (std::is_same_v<T, bool>) {
      uint8_t byte = 0;
      Take(&byte, 1);
      ok_ = ok_ && byte <= 1;
      value = byte == 1;
    } else if constexpr (std::is_arithmetic_v<T>) {
      Take(&value, 1);
    } else {
      uint64_t size = 0;
      (*this)("", size);
      if (size > left_ / sizeof(*value.data())) ok_ = false;
      if (!ok_) return;
      value.resize(size);
      Take(value.data(), size);
    }
  }
  bool ok() const { return ok_ && left_ == 0; }

 private:
  template <class T>
  void Take(T* out, uint64_t count) {
    const uint64_t bytes = count * sizeof(T);
    if (bytes > left_) ok_ = false;
    if (!ok_ || bytes == 0) return;
    std::memcpy(out, at_, bytes);
    at_ += bytes;
    left_ -= bytes;
  }

  const char* at_;
  uint64_t left_;
  bool ok_ = true;
};

class JsonWriter {
 public:
  JsonWriter() { text_.precision(std::numeric_limits<double>::max_digits10); }

  template <class T>
  void operator()(const char* name, const T& value) {
    text_ << separator_ << '"' << name << "\": ";
    separator_ = ", ";
    if constexpr (std::is_same_v<T, bool>) {
      text_ << (value ? "true" : "false");
    } else if constexpr (std::is_floating_point_v<T>) {
      Number(value);
    } else if constexpr (std::is_arithmetic_v<T>) {
      text_ << value;
    } else if constexpr (std::is_same_v<T, std::string>) {
      Quote(value);
    } else {
      text_ << '[';
      for (size_t i = 0; i < value.size(); ++i) {
        if (i > 0) text_ << ", ";
        Number(value[i]);
      }
      text_ << ']';
    }
  }
  std::string Take() { return "{" + text_.str() + "}"; }

 private:
  void Number(double value) {
    if (std::isfinite(value)) {
      text_ << value;
    } else {
      text_ << "null";
    }
  }
  void Quote(const std::string& value) {
    text_ << '"';
    for (const char c : value) {
      if (c == '"' || c == '\\') {
        text_ << '\\' << c;
      } else if (static_cast<unsigned char>(c) < 0x20) {
        constexpr char kHex[] = "0123456789abcdef";
        text_ << "\\u00" << kHex[c >> 4] << kHex[c & 15];
      } else {
        text_ << c;
      }
    }
    text_ << '"';
  }

  std::ostringstream text_;
  const char* separator_ = "";
};

// Calls visit(name, field) for all.
template <class Meta, class Visit>
void Fields(Meta& meta, Visit& visit) {
  visit("name", meta.name);
  visit("storage", meta.storage);
  visit("dim", meta.dim);
  visit("input_dim", meta.input_dim);
  visit("initializer", meta.initializer);
  visit("initializer_a", meta.initializer_a);
  visit("initializer_b", meta.initializer_b);
  visit("seed", meta.seed);
  visit("has_padding", meta.has_padding);
  visit("padding_key", meta.padding_key);
  visit("num_counts", meta.num_counts);
  visit("count_decay", meta.count_decay);
  visit("rule", meta.rule);
  visit("initial_state", meta.initial_state);
  visit("updates", meta.updates);
  visit("rows", meta.rows);
}

}  // namespace

std::string TableMeta::Encode() const {
  Encoder encoder;
  Fields(*this, encoder);
  return encoder.Take();
}

Status TableMeta::Decode(const std::string& bytes, const std::string& where, TableMeta* out) {
  Decoder decoder(bytes);
  TableMeta meta;
  Fields(meta, decoder);
  // Keep sizes in bytes, and sums of rows or updates, far from overflow.
  constexpr int64_t kWide = int64_t{1} << 32, kMany = int64_t{1} << 48;
  const bool in_range = meta.dim > 0 && meta.dim < kWide && meta.num_counts >= 0 &&
                        meta.num_counts < kWide && meta.updates >= 0 && meta.updates < kMany &&
                        meta.rows >= 0 && meta.rows < kMany;
  if (!decoder.ok() || !in_range) {
    return Error(Code::kDataLoss, where, ": the description of the table cannot be read");
  }
  *out = std::move(meta);
  return {};
}

std::string TableMeta::Json() const {
  JsonWriter json;
  Fields(*this, json);
  return json.Take();
}

std::string LoadReport::Json() const {
  JsonWriter json;
  Fields(meta, json);
  json("bound_rule", rule);
  json("kept_state", kept_state);
  json("other_initial", other_initial);
  return json.Take();
}

}  // namespace sparse_emb
