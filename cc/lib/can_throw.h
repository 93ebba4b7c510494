// Whether a thread can throw where memory has run out.
#ifndef TF_SPARSE_EMB_CC_LIB_CAN_THROW_H_
#define TF_SPARSE_EMB_CC_LIB_CAN_THROW_H_

#include <cstdlib>
#include <exception>

namespace sparse_emb {

// A thread's first exception takes memory, for libstdc++'s record of them (in a library that was
// loaded late, like those of Python), and glibc ends the process where there is none. This takes it
// now; false if there is none. What it frees first stays with the thread.
inline bool CanThrow() {
  constexpr size_t kRecordBytes = 32;
  void* volatile reserve = std::malloc(kRecordBytes);
  std::free(reserve);
  return reserve != nullptr && std::uncaught_exceptions() >= 0;
}

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_CAN_THROW_H_
