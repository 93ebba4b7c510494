#include <vector>

#include "tests/cc/duplicate_model.h"
#include "tests/fuzz/targets.h"

namespace sparse_emb {
namespace testing {
namespace {

// Calls fn(batch) for a batch made of the bytes.
template <class Fn>
void WithBatch(const uint8_t* data, size_t size, const Fn& fn) {
  constexpr int64_t kDims[] = {1, 2, 3, 15, 16, 17, 32, 64};
  constexpr Combiner kCombiners[] = {Combiner::kSum, Combiner::kMean, Combiner::kSqrtN};
  Random random(data, size);
  const int64_t dim = kDims[random.Below(8)];
  // So few that what float32 may lose of their sum, n 2^-24, is within what the model allows.
  const int64_t n = random.Below(random.OneIn(4) ? 400 : 100);
  const int64_t num_unique = 2 + random.Below(100), bags = 1 + random.Below(60);
  const Combiner combiner = kCombiners[random.Below(3)];
  const Weights weights = static_cast<Weights>(random.Below(4));
  fn(Batch(random, dim, n, num_unique, bags, weights, combiner));
}

}  // namespace

void FuzzDuplicate(const uint8_t* data, size_t size) {
  WithBatch(data, size, [](const Batch& batch) {
    ExpectGathered(batch);
    ExpectPooled(batch);
    ExpectProducts(batch);
  });
}

void FuzzGradReduce(const uint8_t* data, size_t size) {
  WithBatch(data, size, [](const Batch& batch) {
    ExpectReduced(batch);
    ExpectPooledReduced(batch);
  });
}

}  // namespace testing
}  // namespace sparse_emb
