// A result of an operation on a table: OK, or a code and a message. cc/lib knows nothing of
// TensorFlow; cc/kernels maps these codes to absl::Status.
#ifndef TF_SPARSE_EMB_CC_LIB_STATUS_H_
#define TF_SPARSE_EMB_CC_LIB_STATUS_H_

#include <sstream>
#include <string>
#include <utility>

namespace sparse_emb {

enum class Code {
  kOk,
  kInvalidArgument,
  kFailedPrecondition,
  kResourceExhausted,
  kNotFound,
  kDataLoss,     // what was saved is damaged or cut off
  kUnavailable,  // the system refused to read or write
};

struct Status {
  Code code = Code::kOk;
  std::string message;

  bool ok() const { return code == Code::kOk; }
};

// Joins its arguments into an error message.
template <class... Parts>
Status Error(Code code, const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return {code, text.str()};
}

#define SPARSE_EMB_RETURN_IF_ERROR(expr)                                      \
  do {                                                                        \
    if (::sparse_emb::Status status_ = (expr); !status_.ok()) return status_; \
  } while (false)

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_STATUS_H_
