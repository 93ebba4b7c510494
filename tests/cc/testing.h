// What the tests of cc/lib stand on: TEST, EXPECT_*, random numbers and a pool of real threads. The
// names are GoogleTest's.
#ifndef TF_SPARSE_EMB_TESTS_CC_TESTING_H_
#define TF_SPARSE_EMB_TESTS_CC_TESTING_H_

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "cc/lib/status.h"
#include "cc/lib/worker_pool.h"

namespace sparse_emb {
namespace testing {

// Adds a test to those that RunTests runs.
bool Register(const char* name, void (*run)());

// Runs the tests whose name has one of these parts, or all. What main returns.
int RunTests(const std::vector<std::string>& parts);

// Marks the running test as failed and prints where and why. Thread-safe.
void Fail(const char* file, int line, const std::string& message);

// Whether the running test has failed.
bool HasFailure();

// Words that are printed with each failure of this thread, for as long as it lives.
class ScopedTrace {
 public:
  explicit ScopedTrace(std::string message);
  ~ScopedTrace();
};

// n, or less in a build with a sanitizer, which is 10 times slower.
constexpr int64_t Repeats(int64_t n) {
#if defined(__SANITIZE_THREAD__)
  return n / 25;
#elif defined(__SANITIZE_ADDRESS__)
  return n / 10;
#else
  return n;
#endif
}

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

template <class... Parts>
std::string Join(const Parts&... parts) {
  std::ostringstream text;
  text.precision(9);
  (text << ... << parts);
  return text.str();
}

template <class T>
std::string Show(const T& value) {
  if constexpr (std::is_enum_v<T>) {
    return Join(static_cast<int64_t>(value));
  } else {
    return Join(value);
  }
}

// Where two vectors first differ.
template <class T>
std::string FirstDifference(const std::vector<T>& got, const std::vector<T>& want) {
  if (got.size() != want.size()) return Join("sizes ", got.size(), " and ", want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    if (std::memcmp(&got[i], &want[i], sizeof(T)) != 0) {
      return Join("[", i, "] is ", Show(got[i]), ", not ", Show(want[i]));
    }
  }
  return "";
}

template <class A, class B>
void ExpectEq(const char* file, int line, const char* text, const A& got, const B& want) {
  if (!(got == want)) Fail(file, line, Join(text, ": ", Show(got), " and ", Show(want)));
}
template <class T>
void ExpectEq(const char* file, int line, const char* text, const std::vector<T>& got,
              const std::vector<T>& want) {
  const std::string difference = FirstDifference(got, want);
  if (!difference.empty()) Fail(file, line, Join(text, ": ", difference));
}

void ExpectNear(const char* file, int line, const char* text, double got, double want,
                double tolerance);
void ExpectLe(const char* file, int line, const char* text, double small, double large);
void ExpectError(const char* file, int line, const char* text, const Status& status, Code code,
                 const std::string& part);

// Random numbers, the same in every run; or, where a fuzzer chooses, numbers made of its bytes.
class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  // Of as few bytes as will do; when they are used up, zeros.
  Random(const uint8_t* data, size_t size) : from_bytes_(true), at_(data), end_(data + size) {}

  bool UsedUp() const { return from_bytes_ && at_ == end_; }
  size_t BytesLeft() const { return end_ - at_; }

  int64_t Below(int64_t n) { return static_cast<int64_t>(Next(n - 1) % static_cast<uint64_t>(n)); }
  bool OneIn(int64_t n) { return Below(n) == 0; }
  uint64_t Bits() { return Next(~uint64_t{0}); }
  // In [-1, 1). A fuzzer does not choose these, which nothing depends on.
  float Float() { return static_cast<float>(static_cast<int64_t>(engine_() >> 40)) * 0x1p-23f - 1; }
  std::vector<float> Floats(int64_t n) {
    std::vector<float> values(n);
    for (float& value : values) value = Float();
    return values;
  }

 private:
  uint64_t Next(uint64_t most) {
    if (!from_bytes_) return engine_();
    uint64_t value = 0;
    for (; most > 0; most >>= 8) value = value << 8 | (at_ < end_ ? *at_++ : 0);
    return value;
  }

  std::mt19937_64 engine_;
  bool from_bytes_ = false;
  const uint8_t* at_ = nullptr;
  const uint8_t* end_ = nullptr;
};

// Cuts [0, total) into more ranges than it has threads and runs them in random order on real
// threads, whatever they cost. Not thread-safe: a pool for each caller.
class StdThreadPool final : public WorkerPool {
 public:
  explicit StdThreadPool(int threads, uint64_t seed = 1) : threads_(threads), random_(seed) {}
  int num_threads() const override { return threads_; }
  void ParallelFor(int64_t total, int64_t cost, const RangeFn& fn) override;

 private:
  const int threads_;
  Random random_;
};

}  // namespace testing
}  // namespace sparse_emb

#define TEST(name)                                         \
  static void Test##name();                                \
  [[maybe_unused]] static const bool registered_##name =   \
      ::sparse_emb::testing::Register(#name, &Test##name); \
  static void Test##name()

#define SCOPED_TRACE(...) \
  const ::sparse_emb::testing::ScopedTrace scoped_trace_(::sparse_emb::testing::Join(__VA_ARGS__))

#define EXPECT_TRUE(condition)                                                                 \
  do {                                                                                         \
    if (!(condition)) ::sparse_emb::testing::Fail(__FILE__, __LINE__, #condition " is false"); \
  } while (false)
#define EXPECT_EQ(got, want) \
  ::sparse_emb::testing::ExpectEq(__FILE__, __LINE__, #got " == " #want, got, want)
#define EXPECT_NEAR(got, want, tolerance) \
  ::sparse_emb::testing::ExpectNear(__FILE__, __LINE__, #got " near " #want, got, want, tolerance)
#define EXPECT_LE(small, large) \
  ::sparse_emb::testing::ExpectLe(__FILE__, __LINE__, #small " <= " #large, small, large)
#define EXPECT_OK(status)                                                                          \
  ::sparse_emb::testing::ExpectError(__FILE__, __LINE__, #status, status, ::sparse_emb::Code::kOk, \
                                     "")
// The status has this code, and `part` is a part of its message.
#define EXPECT_ERROR(status, code, part) \
  ::sparse_emb::testing::ExpectError(__FILE__, __LINE__, #status, status, code, part)

#endif  // TF_SPARSE_EMB_TESTS_CC_TESTING_H_
