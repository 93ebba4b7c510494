// Reads the chunks of a source, each while its caller works on the one before.
#ifndef TF_SPARSE_EMB_CC_LIB_READ_AHEAD_H_
#define TF_SPARSE_EMB_CC_LIB_READ_AHEAD_H_

#include <future>
#include <system_error>
#include <utility>

#include "cc/lib/can_throw.h"
#include "cc/lib/table_stream.h"

namespace sparse_emb {

class ReadAhead {
 public:
  // The source has begun, and is only to be asked for its name while this lives.
  explicit ReadAhead(RowSource* source) : source_(source) {}

  // *chunk = the next, until the call after this; an empty one after the last.
  Status Next(RowChunk** chunk) {
    SPARSE_EMB_RETURN_IF_ERROR(next_.valid() ? next_.get() : source_->Read(&read_));
    std::swap(given_, read_);
    *chunk = &given_;
    if (given_.empty()) return {};
    try {
      next_ = std::async(std::launch::async, [this] {
        CanThrow();
        return source_->Read(&read_);
      });
    } catch (const std::system_error&) {  // no thread: the next call reads
    }
    return {};
  }

 private:
  RowSource* const source_;
  RowChunk given_, read_;
  std::future<Status> next_;  // of read_; its destructor waits
};

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_READ_AHEAD_H_
