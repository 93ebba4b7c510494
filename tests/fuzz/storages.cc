#include <cmath>
#include <vector>

#include "tests/cc/keys.h"
#include "tests/cc/table_operations.h"
#include "tests/fuzz/targets.h"

namespace sparse_emb {
namespace testing {
namespace {

// Keys of few shards and of many, that collide and that do not.
const std::vector<int64_t>& SomeKeys(Random* random) {
  static const std::vector<int64_t> kKeys[] = {HardKeys(20), HardKeys(400), CollidingKeys(300),
                                               DenseKeys(3000)};
  return kKeys[random->Below(4)];
}

}  // namespace

void FuzzStorage(const std::string& storage, const uint8_t* data, size_t size) {
  constexpr int64_t kDims[] = {1, 3, 16, 67}, kInputDims[] = {1, 65, 900, 4097};
  const MaxNorm norms[] = {{}, {0.7f, 2.0f}, {1.4f, 1.0f}, {0.4f, INFINITY}};
  Random random(data, size);
  const bool index = storage == "index";
  const int64_t input_dim = index ? kInputDims[random.Below(4)] : -1;
  const std::vector<int64_t> keys = index ? DenseKeys(input_dim) : SomeKeys(&random);
  TableOptions options = UniformTable(storage, kDims[random.Below(4)], input_dim);
  if (random.OneIn(2)) options.padding_key = keys[random.Below(keys.size())];
  options.max_norm = norms[random.Below(4)];
  options.key_counts = {random.Below(3), random.OneIn(2) ? 0.5 : 1.0};
  SerialPool pool;
  RandomOperations(options, keys, &pool, random).Run(400);
}

}  // namespace testing
}  // namespace sparse_emb
