// Measures what the machine's memory can do: the rate of a copy, and of reads and updates of rows
// at random places.
//
//   limits THREADS TABLE_BYTES HUGE_PAGES copy|read|update [ROW_BYTES]
//
// Prints nanoseconds, the best of 5 passes: of a byte moved (copy: read and written), or of a row.
// Rows lie side by side in a table of TABLE_BYTES; each thread touches places of a fixed
// pseudorandom order, prefetching 16 rows ahead, and reads a row (a sum of its floats) or adds to
// it. HUGE_PAGES 1 asks the kernel for them, 0 asks it not to.

#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr int kPasses = 5;
constexpr int64_t kAhead = 16;
constexpr int64_t kLine = 64;

char* Map(size_t bytes, bool huge_pages) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    std::perror("mmap");
    std::exit(1);
  }
  madvise(memory, bytes, huge_pages ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
  std::memset(memory, 0, bytes);
  return static_cast<char*>(memory);
}

// Seconds that `work(thread)` takes on all threads, the best of kPasses.
template <typename Work>
double Seconds(int threads, const Work& work) {
  double best = 1e30;
  for (int pass = 0; pass < kPasses; ++pass) {
    const auto begin = std::chrono::steady_clock::now();
    std::vector<std::thread> workers;
    for (int t = 1; t < threads; ++t) workers.emplace_back(work, t, pass);
    work(0, pass);
    for (auto& worker : workers) worker.join();
    best = std::min(
        best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return best;
}

uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 31)) * 0x9e3779b97f4a7c15ull;
  return (x ^ (x >> 29)) * 0xbf58476d1ce4e5b9ull;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) return 2;
  const int threads = std::atoi(argv[1]);
  const size_t table_bytes = std::strtoull(argv[2], nullptr, 10);
  char* table = Map(table_bytes, std::atoi(argv[3]));
  const std::string what = argv[4];
  if (what == "copy") {
    const size_t half = table_bytes / 2, share = half / threads;
    const double seconds = Seconds(threads, [&](int t, int) {
      std::memcpy(table + half + t * share, table + t * share, share);
    });
    std::printf("%.6f\n", seconds * 1e9 / (2.0 * share * threads));
    return 0;
  }
  if (argc < 6) return 2;
  const int64_t row_bytes = std::atoll(argv[5]), floats = row_bytes / 4,
                rows = table_bytes / row_bytes;
  const int64_t count = std::min<int64_t>(rows, (int64_t{1} << 29) / row_bytes) / threads;
  const bool updates = what == "update";
  volatile float sink = 0;
  const double seconds = Seconds(threads, [&](int t, int pass) {
    // The top 32 bits of a hash, scaled to the number of rows: no division.
    auto row_at = [&](int64_t i) {
      const uint64_t place =
          Mix((static_cast<uint64_t>(pass) << 48) + (static_cast<uint64_t>(t) << 40) + i) >> 32;
      return table + static_cast<int64_t>(place * static_cast<uint64_t>(rows) >> 32) * row_bytes;
    };
    float sums[16] = {};
    for (int64_t i = 0; i < count; ++i) {
      const char* ahead = row_at(i + kAhead);
      for (int64_t line = 0; line < row_bytes; line += kLine) __builtin_prefetch(ahead + line, 0);
      float* row = reinterpret_cast<float*>(row_at(i));
      int64_t d = 0;
      if (updates) {
        for (; d + 16 <= floats; d += 16) {
          for (int k = 0; k < 16; ++k) row[d + k] += 1.0f;
        }
        for (; d < floats; ++d) row[d] += 1.0f;
      } else {
        for (; d + 16 <= floats; d += 16) {
          for (int k = 0; k < 16; ++k) sums[k] += row[d + k];
        }
        for (; d < floats; ++d) sums[0] += row[d];
      }
    }
    float sum = 0;
    for (float part : sums) sum += part;
    if (t == 0) sink = sum;
  });
  std::printf("%.6f\n", seconds * 1e9 / (count * threads));
  return 0;
}
