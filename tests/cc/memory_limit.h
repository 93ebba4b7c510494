// Tests of what happens when memory runs out.
#ifndef TF_SPARSE_EMB_TESTS_CC_MEMORY_LIMIT_H_
#define TF_SPARSE_EMB_TESTS_CC_MEMORY_LIMIT_H_

#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "tests/cc/table_model.h"
#include "tests/cc/testing.h"

namespace sparse_emb {
namespace testing {

// How much of its addresses the process uses.
inline int64_t AddressBytes() {
  long pages = 0;
  FILE* statm = std::fopen("/proc/self/statm", "r");
  EXPECT_EQ(std::fscanf(statm, "%ld", &pages), 1);
  std::fclose(statm);
  return pages * sysconf(_SC_PAGESIZE);
}

// While it lives, the process may take this much more memory than it uses now, or than it `used`:
// what was freed in small blocks since then need not have gone back to the system.
class MemoryLimit {
 public:
  explicit MemoryLimit(int64_t bytes, int64_t used = 0) {
    malloc_trim(0);
    getrlimit(RLIMIT_AS, &old_limit_);
    rlimit limit = old_limit_;
    limit.rlim_cur = (used > 0 ? used : AddressBytes()) + bytes;
    setrlimit(RLIMIT_AS, &limit);
  }
  ~MemoryLimit() { setrlimit(RLIMIT_AS, &old_limit_); }
  MemoryLimit(const MemoryLimit&) = delete;
  MemoryLimit& operator=(const MemoryLimit&) = delete;

 private:
  rlimit old_limit_;
};

// Calls run(storage) for each, in a process of its own, where no memory that other tests gave back
// is at hand. `test` is the name of the test that calls this.
inline void OnEveryStorageAlone(const char* test, void (*run)(const std::string& storage)) {
  if (kSanitized) return;  // they end the process where new would throw
  if (const char* storage = std::getenv("STORAGE_ALONE")) {
    mallopt(M_MMAP_THRESHOLD, 128 << 10);  // also keeps the threshold from growing
    return run(storage);
  }
  for (const std::string storage : kAllStorages) {
    SCOPED_TRACE(storage);
    const std::string command =
        Join("STORAGE_ALONE=", storage, " exec /proc/", getpid(), "/exe ", test);
    EXPECT_EQ(std::system(command.c_str()), 0);
  }
}

}  // namespace testing
}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_TESTS_CC_MEMORY_LIMIT_H_
