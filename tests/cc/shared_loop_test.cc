// A loop is done once, whoever of those that were asked comes to help.
#include "cc/lib/shared_loop.h"

#include <functional>
#include <new>
#include <thread>
#include <vector>

#include "tests/cc/testing.h"

namespace sparse_emb {
namespace testing {
namespace {

using Helper = std::function<void()>;

constexpr int64_t kDear = 1000 * 1000;  // a unit that is worth a thread
constexpr int kThreads = 4;

// How often each of `total` units was done, whatever the ranges.
struct Counts {
  explicit Counts(int64_t total) : of(total) {}
  void operator()(int64_t begin, int64_t end) const {
    EXPECT_TRUE(begin < end);
    for (int64_t i = begin; i < end; ++i) ++of[i];
  }
  void ExpectOnce() const {
    for (const auto& count : of) EXPECT_EQ(count.load(), 1);
  }
  mutable std::vector<std::atomic<int>> of;
};

TEST(ALoopIsDoneOnceByHelpersThatComeAtOnce) {
  for (const int64_t total : {0, 1, 2, 3, 7, 16, 17, 1000, 100003}) {
    SCOPED_TRACE(total);
    const Counts counts(total);
    std::vector<std::thread> threads;
    SharedLoop::Run(total, kDear, kThreads, counts,
                    [&](const Helper& helper) { threads.emplace_back(helper); });
    counts.ExpectOnce();
    EXPECT_EQ(threads.size(), total < 2 ? 0 : kThreads);
    for (std::thread& thread : threads) thread.join();
  }
}

TEST(ALoopThatNobodyHelpsWithIsTheCallers) {
  std::vector<Helper> late;
  {
    const Counts counts(1000);
    SharedLoop::Run(1000, kDear, kThreads, counts,
                    [&](const Helper& helper) { late.push_back(helper); });
    counts.ExpectOnce();
  }
  EXPECT_EQ(late.size(), kThreads);
  for (const Helper& helper : late) helper();  // what they would have worked on is no more
}

TEST(ALoopInALoopEndsThoughAllThreadsAreBusy) {
  const Counts counts(kThreads);
  std::atomic<int64_t> inner{0};
  std::vector<std::thread> threads;
  const auto nobody = [](const Helper&) {};
  SharedLoop::Run(
      kThreads, kDear, kThreads,
      [&](int64_t begin, int64_t end) {
        counts(begin, end);
        SharedLoop::Run(
            1000, kDear, kThreads, [&](int64_t b, int64_t e) { inner += e - b; }, nobody);
      },
      [&](const Helper& helper) { threads.emplace_back(helper); });
  for (std::thread& thread : threads) thread.join();
  counts.ExpectOnce();
  EXPECT_EQ(inner.load(), 1000 * kThreads);
}

TEST(ASmallLoopIsTheCallersAlone) {
  const Counts counts(1000);
  int helpers = 0, ranges = 0;
  const auto schedule = [&](const Helper&) { ++helpers; };
  const auto fn = [&](int64_t begin, int64_t end) {
    counts(begin, end);
    ++ranges;
  };
  SharedLoop::Run(1000, 1, kThreads, fn, schedule);  // a microsecond
  EXPECT_EQ(helpers, 0);
  EXPECT_EQ(ranges, 1);
  SharedLoop::Run(1000, kDear, 1, fn, schedule);  // one thread
  EXPECT_EQ(helpers, 0);
  EXPECT_EQ(ranges, 2);
  SharedLoop::Run(1000, 250, kThreads, fn, schedule);  // worth two threads
  EXPECT_EQ(helpers, 2);
}

TEST(ALoopWithoutMemoryForHelpersIsDoneByThoseThereAre) {
  for (int room = 0; room <= kThreads; ++room) {
    SCOPED_TRACE(room);
    const Counts counts(1000);
    std::vector<std::thread> threads;
    SharedLoop::Run(1000, kDear, kThreads, counts, [&](const Helper& helper) {
      if (static_cast<int>(threads.size()) == room) throw std::bad_alloc();
      threads.emplace_back(helper);
    });
    counts.ExpectOnce();
    for (std::thread& thread : threads) thread.join();
  }
}

TEST(ARangeWithoutMemoryIsAnErrorWhenAllRangesWereTried) {
  const Counts counts(1000);
  std::vector<std::thread> threads;
  bool thrown = false;
  try {
    SharedLoop::Run(
        1000, kDear, kThreads,
        [&](int64_t begin, int64_t end) {
          counts(begin, end);
          if (begin <= 700 && 700 < end) throw std::bad_alloc();
        },
        [&](const Helper& helper) { threads.emplace_back(helper); });
  } catch (const std::bad_alloc&) {
    thrown = true;
    counts.ExpectOnce();
  }
  EXPECT_TRUE(thrown);
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace testing
}  // namespace sparse_emb
