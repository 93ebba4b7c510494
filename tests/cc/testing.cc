#include "tests/cc/testing.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <mutex>
#include <new>
#include <numeric>
#include <thread>

namespace sparse_emb {
namespace testing {
namespace {

struct Test {
  const char* name;
  void (*run)();
};

std::vector<Test>& Tests() {
  static std::vector<Test> tests;
  return tests;
}

std::mutex print_mutex;
std::atomic<int> failures{0};  // of the running test
thread_local std::vector<std::string> traces;

constexpr int kMaxPrinted = 10;  // failures of a test

bool Matches(const std::string& name, const std::vector<std::string>& parts) {
  return parts.empty() || std::any_of(parts.begin(), parts.end(), [&](const std::string& part) {
           return name.find(part) != std::string::npos;
         });
}

}  // namespace

bool Register(const char* name, void (*run)()) {
  Tests().push_back({name, run});
  return true;
}

void Fail(const char* file, int line, const std::string& message) {
  const std::lock_guard lock(print_mutex);
  if (failures++ >= kMaxPrinted) return;
  std::printf("%s:%d: %s\n", file, line, message.c_str());
  for (const std::string& trace : traces) std::printf("  in %s\n", trace.c_str());
}

bool HasFailure() { return failures > 0; }

ScopedTrace::ScopedTrace(std::string message) { traces.push_back(std::move(message)); }
ScopedTrace::~ScopedTrace() { traces.pop_back(); }

void ExpectNear(const char* file, int line, const char* text, double got, double want,
                double tolerance) {
  if (std::abs(got - want) <= tolerance) return;
  Fail(file, line, Join(text, ": ", got, " and ", want, " differ by more than ", tolerance));
}

void ExpectLe(const char* file, int line, const char* text, double small, double large) {
  if (!(small <= large)) Fail(file, line, Join(text, ": ", small, " and ", large));
}

void ExpectError(const char* file, int line, const char* text, const Status& status, Code code,
                 const std::string& part) {
  if (status.code == code && status.message.find(part) != std::string::npos) return;
  Fail(file, line,
       Join(text, ": code ", Show(status.code), ", not ", Show(code), ", message \"",
            status.message, "\", wanted \"", part, "\""));
}

void StdThreadPool::ParallelFor(int64_t total, int64_t, const RangeFn& fn) {
  if (total <= 0) return;
  std::vector<int64_t> cuts = {0, total};
  for (int64_t i = 0; i < 2 * threads_ + random_.Below(4); ++i)
    cuts.push_back(random_.Below(total));
  std::sort(cuts.begin(), cuts.end());
  cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
  std::vector<size_t> order(cuts.size() - 1);
  std::iota(order.begin(), order.end(), 0);
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random_.Below(i)]);

  std::atomic<size_t> next{0};
  std::atomic<bool> no_memory{false};
  const auto work = [&] {
    try {
      for (size_t i = next++; i < order.size(); i = next++) fn(cuts[order[i]], cuts[order[i] + 1]);
    } catch (const std::bad_alloc&) {
      no_memory = true;
    }
  };
  std::vector<std::thread> others;
  const int64_t count = std::min<int64_t>(threads_, order.size());
  for (int64_t i = 1; i < count; ++i) others.emplace_back(work);
  work();
  for (std::thread& other : others) other.join();
  if (no_memory) throw std::bad_alloc();
}

int RunTests(const std::vector<std::string>& parts) {
  int passed = 0;
  int failed = 0;
  for (const Test& test : Tests()) {
    if (!Matches(test.name, parts)) continue;
    failures = 0;
    const auto start = std::chrono::steady_clock::now();
    test.run();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    const bool ok = failures == 0;
    ++(ok ? passed : failed);
    std::printf("%s %s (%.2f s)\n", ok ? "ok    " : "FAILED", test.name, seconds.count());
    std::fflush(stdout);
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed > 0 ? 1 : 0;
}

}  // namespace testing
}  // namespace sparse_emb
