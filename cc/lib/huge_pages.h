// Memory in pages of 2 MiB, where the system gives them: a random row of a large table in pages of
// 4 KiB costs a walk through the page tables, which misses the cache as the row does.
#ifndef TF_SPARSE_EMB_CC_LIB_HUGE_PAGES_H_
#define TF_SPARSE_EMB_CC_LIB_HUGE_PAGES_H_

#include <sys/mman.h>

#include <cstdint>
#include <map>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

namespace sparse_emb {

inline constexpr int64_t kHugePageBytes = 2 << 20;

// Zeroed bytes of the system that begin at a huge page, for Unmap; null if there are none. No page
// is in memory until it is written.
inline char* MapHuge(int64_t bytes) {
  const size_t whole = static_cast<size_t>(bytes) + kHugePageBytes;
  void* const block =
      mmap(nullptr, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (block == MAP_FAILED) return nullptr;
  char* const begin = static_cast<char*>(block);
  const uintptr_t address = reinterpret_cast<uintptr_t>(begin);
  const int64_t head = (kHugePageBytes - address % kHugePageBytes) % kHugePageBytes;
  // What stands before and behind goes back; the page that `bytes` end in stays.
  constexpr int64_t kPage = 4096;
  const int64_t end = (head + bytes + kPage - 1) / kPage * kPage;
  if (head > 0) munmap(begin, head);
  if (end < static_cast<int64_t>(whole)) munmap(begin + end, whole - end);
#if defined(MADV_HUGEPAGE)
  madvise(begin + head, end - head, MADV_HUGEPAGE);  // may be refused: small pages serve as well
#endif
  return begin + head;
}

inline void Unmap(char* data, int64_t bytes) { munmap(data, static_cast<size_t>(bytes)); }

// Chunks of a few KiB cut from huge pages, for the shards of a table, which would fill such pages
// slowly if each had its own. Thread-safe.
class ChunkArena {
 public:
  ChunkArena() = default;
  ChunkArena(const ChunkArena&) = delete;
  ChunkArena& operator=(const ChunkArena&) = delete;
  ~ChunkArena() {
    for (const auto& [data, bytes] : regions_) Unmap(data, bytes);
  }

  // Memory for `bytes`, a multiple of 64, at a cache line. Throws std::bad_alloc.
  char* Allocate(int64_t bytes) {
    const std::lock_guard lock(mutex_);
    std::vector<char*>& free = free_[bytes];
    if (!free.empty()) {
      char* const chunk = free.back();
      free.pop_back();
      return chunk;
    }
    if (bytes > end_ - next_) AddRegion(bytes);
    return std::exchange(next_, next_ + bytes);
  }

  // Takes back what Allocate(bytes) gave. The system gets the pages that lie in it.
  void Free(char* chunk, int64_t bytes) noexcept {
    constexpr uintptr_t kPage = 4096;
    const uintptr_t begin = (reinterpret_cast<uintptr_t>(chunk) + kPage - 1) / kPage * kPage;
    const uintptr_t end = (reinterpret_cast<uintptr_t>(chunk) + bytes) / kPage * kPage;
    const std::lock_guard lock(mutex_);
    if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
    try {
      free_[bytes].push_back(chunk);
    } catch (const std::bad_alloc&) {
      // Its addresses are lost until the arena goes, its memory is not.
    }
  }

 private:
  static constexpr int64_t kRegionBytes = 16 * kHugePageBytes;

  void AddRegion(int64_t bytes) {
    regions_.reserve(regions_.size() + 1);
    for (int64_t size = kRegionBytes; size >= bytes; size /= 2) {
      char* const data = MapHuge(size);
      if (data == nullptr) continue;  // little is left: be modest
      regions_.emplace_back(data, size);
      next_ = data;
      end_ = data + size;
      return;
    }
    throw std::bad_alloc();
  }

  std::mutex mutex_;
  std::vector<std::pair<char*, int64_t>> regions_;
  std::map<int64_t, std::vector<char*>> free_;  // by size
  char* next_ = nullptr;                        // the rest of the last region
  char* end_ = nullptr;
};

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_HUGE_PAGES_H_
