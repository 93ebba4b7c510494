// Bytes in order, on their way to or from a file or another thread.
#ifndef TF_SPARSE_EMB_CC_LIB_BYTE_STREAM_H_
#define TF_SPARSE_EMB_CC_LIB_BYTE_STREAM_H_

#include <cstdint>
#include <initializer_list>

#include "cc/lib/status.h"

namespace sparse_emb {

// Bytes that belong to others.
struct Bytes {
  const void* data;
  int64_t size;
};

class ByteSink {
 public:
  virtual ~ByteSink() = default;
  // All of them, one after the other.
  virtual Status Write(std::initializer_list<Bytes> pieces) = 0;
};

class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // As many as there are, up to `bytes`.
  virtual Status Read(void* data, int64_t bytes, int64_t* got) = 0;
  // How many there are in all; -1 if nobody knows before the end.
  virtual int64_t Size() const { return -1; }
};

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_BYTE_STREAM_H_
