#include "cc/lib/in_turn.h"

#include <atomic>
#include <vector>

#include "tests/cc/testing.h"

namespace sparse_emb {
namespace testing {
namespace {

TEST(WhatIsDoneInTurnComesInTheOrderOfTheJobs) {
  InTurn jobs;
  std::atomic<int64_t> next{0};
  std::vector<int64_t> order;  // written by whoever has the turn
  RunOnOwnThreads(4, [&] {
    for (int64_t job; (job = next++) < 1000;) {
      EXPECT_OK(Turn(&jobs, job).Wait());
      order.push_back(job);
      jobs.Done(job, {});
    }
  });
  EXPECT_OK(jobs.status());
  EXPECT_EQ(order.size(), 1000u);
  for (int64_t i = 0; i < 1000; ++i) EXPECT_EQ(order[i], i);
}

TEST(AJobThatFailsIsTheErrorOfAllThatFollow) {
  InTurn jobs;
  std::atomic<int64_t> next{0};
  std::atomic<int> written{0}, refused{0};
  RunOnOwnThreads(3, [&] {
    for (int64_t job; (job = next++) < 100;) {
      // Before its turn, as where memory runs out.
      Status status = job == 40 ? Error(Code::kUnavailable, "40") : Turn(&jobs, job).Wait();
      if (job != 40) ++(status.ok() ? written : refused);
      jobs.Done(job, std::move(status));
    }
  });
  EXPECT_EQ(written, 40);
  EXPECT_EQ(refused, 59);
  EXPECT_EQ(jobs.status().message, "40");
}

TEST(AJobThatIsAloneNeedNotWait) { EXPECT_OK(Turn().Wait()); }

}  // namespace
}  // namespace testing
}  // namespace sparse_emb
