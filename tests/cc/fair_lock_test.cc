// Who gets a share of a FairLock without waiting.
#include "cc/lib/fair_lock.h"

#include <atomic>
#include <thread>

#include "tests/cc/testing.h"

namespace sparse_emb {
namespace testing {
namespace {

TEST(AShareIsHadAtOnceAsLongAsNobodyWantsTheLockAlone) {
  FairLock lock;
  const auto first = lock.TryShared(), second = lock.TryShared();
  EXPECT_TRUE(first.owns_lock());
  EXPECT_TRUE(second.owns_lock());
}

TEST(AShareIsNotWaitedForWhileSomeoneHasTheLockAlone) {
  FairLock lock;
  {
    const auto alone = lock.Alone();
    std::thread([&] { EXPECT_TRUE(!lock.TryShared().owns_lock()); }).join();
  }
  EXPECT_TRUE(lock.TryShared().owns_lock());
}

// As while a table is saved, which shares it, and an update waits for the end.
TEST(AShareIsNotWaitedForBehindSomeoneWhoWaitsForTheLockAlone) {
  FairLock lock;
  std::atomic<bool> had{false};
  std::thread writer;
  {
    const auto shared = lock.Shared();
    writer = std::thread([&] {
      const auto alone = lock.Alone();
      had = true;
    });
    while (lock.TryShared().owns_lock()) std::this_thread::yield();  // until the writer queues
    EXPECT_TRUE(!had);
  }
  writer.join();
  EXPECT_TRUE(had);
  EXPECT_TRUE(lock.TryShared().owns_lock());
}

}  // namespace
}  // namespace testing
}  // namespace sparse_emb
