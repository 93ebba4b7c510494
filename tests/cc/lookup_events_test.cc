// A lookup that inserts gives rows of one moment, and leaves all of its keys in the table, whatever
// happens between its locks.
#include <string>
#include <vector>

#include "tests/cc/keys.h"
#include "tests/cc/table_events.h"
#include "tests/cc/testing.h"

namespace sparse_emb {
namespace testing {
namespace {

// Looks keys up in a table to which something happens after the lookup's loop of this number, and
// in a twin to which it has happened before; then both are updated.
void ExpectTheSameAsAfterTheEvent(const std::string& storage, int64_t num_keys, float max_norm,
                                  const std::vector<int64_t>& keys, int threads, int loop) {
  for (const auto& [name, event] : EventsOf(num_keys)) {
    for (const Missing missing : {Missing::kInitial, Missing::kZeros}) {
      SCOPED_TRACE(storage, ", ", name, ", missing ", static_cast<int>(missing));
      const auto table = HalfFullTable(storage, num_keys, max_norm);
      const auto twin = HalfFullTable(storage, num_keys, max_norm);
      EventPool event_pool(threads, loop, [&, &event = event] { event(table.get()); });
      const int64_t n = keys.size();
      std::vector<float> got(n * kDim, -9.0f), want(n * kDim);
      EXPECT_OK(table->Lookup(keys.data(), n, true, missing, got.data(), &event_pool));
      EXPECT_TRUE(event_pool.has_happened());
      SerialPool pool;
      event(twin.get());
      EXPECT_OK(twin->Lookup(keys.data(), n, true, missing, want.data(), &pool));
      EXPECT_EQ(got, want);
      UpdateAll(table.get(), DenseKeys(num_keys));
      UpdateAll(twin.get(), DenseKeys(num_keys));
      ExpectSameRows(ExportRows(table.get(), true), ExportRows(twin.get(), true));
      if (HasFailure()) return;
    }
  }
}

// The second loop is the first of the dedup of absent keys, which are enough for four threads: half
// of the batch, many times each.
TEST(AnEventBeforeTheInsertIsAsOneBeforeTheLookup) {
  constexpr int64_t kKeys = 600;
  std::vector<int64_t> keys;
  for (int64_t i = 0; i < 132000; ++i) keys.push_back(i % kKeys);
  for (const std::string storage : kAllStorages) {
    for (const float max_norm : {0.0f, 0.5f}) {
      ExpectTheSameAsAfterTheEvent(storage, kKeys, max_norm, keys, 4, 2);
      if (HasFailure()) return;
    }
  }
}

// The second loop finds the rows that are too long, and all keys are there.
TEST(AnEventBeforeNormsAreBoundIsAsOneBeforeTheLookup) {
  constexpr int64_t kKeys = 3000;
  std::vector<int64_t> keys;
  for (int64_t key = 0; key < kKeys; key += 2) keys.push_back(key);
  for (const std::string storage : kAllStorages) {
    ExpectTheSameAsAfterTheEvent(storage, kKeys, 0.25f, keys, 1, 2);
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace testing
}  // namespace sparse_emb
