// Memory in pages of 2 MiB, where the system gives them: a random row of a large table in pages of
// 4 KiB costs a walk through the page tables, which misses the cache as the row does.
#ifndef TF_SPARSE_EMB_CC_LIB_HUGE_PAGES_H_
#define TF_SPARSE_EMB_CC_LIB_HUGE_PAGES_H_

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <iterator>
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
    for (const auto& [data, region] : regions_) Unmap(data, region.bytes);
  }

  // Memory for `bytes`, a multiple of 64, at a cache line. Throws std::bad_alloc.
  char* Allocate(int64_t bytes) {
    const std::lock_guard lock(mutex_);
    std::vector<char*>& free = free_[bytes];
    char* chunk;
    if (!free.empty()) {
      chunk = free.back();
      free.pop_back();
    } else {
      if (bytes > end_ - next_) AddRegion(bytes);
      chunk = std::exchange(next_, next_ + bytes);
    }
    ++RegionOf(chunk)->second.chunks;
    return chunk;
  }

  // Takes back what Allocate(bytes) gave. The system gets the pages that lie in it.
  void Free(char* chunk, int64_t bytes) noexcept {
    constexpr uintptr_t kPage = 4096;
    const uintptr_t begin = (reinterpret_cast<uintptr_t>(chunk) + kPage - 1) / kPage * kPage;
    const uintptr_t end = (reinterpret_cast<uintptr_t>(chunk) + bytes) / kPage * kPage;
    const std::lock_guard lock(mutex_);
    --RegionOf(chunk)->second.chunks;
    if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
    try {
      free_[bytes].push_back(chunk);
    } catch (const std::bad_alloc&) {
      // Its addresses are lost until the arena goes, its memory is not.
    }
  }

  // Gives the system what has no chunk in use.
  void Trim() noexcept {
    const std::lock_guard lock(mutex_);
    for (auto at = regions_.begin(); at != regions_.end();) {
      if (at->second.chunks > 0) {
        ++at;
        continue;
      }
      char *const begin = at->first, *const end = begin + at->second.bytes;
      for (auto& [bytes, chunks] : free_) {
        const auto is_here = [&](char* chunk) { return chunk >= begin && chunk < end; };
        chunks.erase(std::remove_if(chunks.begin(), chunks.end(), is_here), chunks.end());
      }
      if (end_ == end) next_ = end_ = nullptr;
      Unmap(begin, at->second.bytes);
      at = regions_.erase(at);
    }
  }

 private:
  static constexpr int64_t kFirstRegionBytes = 2 * kHugePageBytes;
  static constexpr int64_t kRegionBytes = 16 * kHugePageBytes;

  struct Region {
    int64_t bytes;
    int64_t chunks;  // in use
  };
  using Regions = std::map<char*, Region>;  // by where they begin

  Regions::iterator RegionOf(char* chunk) { return std::prev(regions_.upper_bound(chunk)); }

  // As large as all before it together.
  void AddRegion(int64_t bytes) {
    int64_t all = 0;
    for (const auto& [data, region] : regions_) all += region.bytes;
    int64_t size = kFirstRegionBytes;
    while (size < std::max(std::min(all, kRegionBytes), bytes)) size *= 2;
    for (; size >= bytes; size /= 2) {
      char* const data = MapHuge(size);
      if (data == nullptr) continue;  // little is left: be modest
      try {
        regions_.emplace(data, Region{size, 0});
      } catch (const std::bad_alloc&) {
        Unmap(data, size);
        throw;
      }
      next_ = data;
      end_ = data + size;
      return;
    }
    throw std::bad_alloc();
  }

  std::mutex mutex_;
  Regions regions_;
  std::map<int64_t, std::vector<char*>> free_;  // by size
  char* next_ = nullptr;                        // the rest of the last region
  char* end_ = nullptr;
};

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_HUGE_PAGES_H_
