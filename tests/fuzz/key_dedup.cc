#include <vector>

#include "tests/cc/key_dedup_model.h"
#include "tests/cc/keys.h"
#include "tests/fuzz/targets.h"

namespace sparse_emb {
namespace testing {
namespace {

std::vector<int64_t> SomeKeys(const std::vector<int64_t>& from, int64_t most, Random* random) {
  std::vector<int64_t> keys;
  while (static_cast<int64_t>(keys.size()) < most && !random->UsedUp()) {
    int64_t key = from[random->Below(from.size())];
    if (random->OneIn(64)) key = static_cast<int64_t>(random->Bits());
    keys.insert(keys.end(), random->OneIn(16) ? 1 + random->Below(100) : 1, key);
  }
  return keys;
}

}  // namespace

void FuzzKeyDedup(const uint8_t* data, size_t size) {
  static const std::vector<int64_t> kKeys[] = {HardKeys(20), HardKeys(400), CollidingKeys(200),
                                               DenseKeys(60000)};
  Random random(data, size);
  const std::vector<int64_t>& from = kKeys[random.Below(4)];
  if (random.OneIn(2)) {
    Features features(1 + random.Below(5));
    const int64_t count = random.Below(8);
    for (int64_t f = 0; f < count; ++f) {
      features.Add(random.Below(features.num_tables), SomeKeys(from, random.Below(200), &random));
    }
    return ExpectDedup(features);
  }
  const int64_t times = random.OneIn(32) ? 1 + random.Below(100) : 1;
  const std::vector<int64_t> part = SomeKeys(from, 1 << 10, &random);
  std::vector<int64_t> keys;
  // Long enough, at times, to be cut up among threads; what comes again is partly another key.
  for (int64_t i = 0; i < times; ++i) {
    for (const int64_t key : part) keys.push_back(key ^ i / 2 * (key & 1));
  }
  ExpectDedup(keys);
}

}  // namespace testing
}  // namespace sparse_emb
