// Max-pooling and its gradient against slow twins.
#include "cc/lib/max_pool.h"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "tests/cc/testing.h"

namespace sparse_emb {
namespace testing {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// U rows, N of them in B bags.
struct Batch {
  int64_t dim, num_unique;
  std::vector<float> rows;
  std::vector<int32_t> inverse;
  std::vector<int64_t> splits;

  int64_t num_bags() const { return static_cast<int64_t>(splits.size()) - 1; }
};

struct Pooled {
  std::vector<float> out;
  std::vector<int32_t> argmax;
};

// A NaN counts as the greatest.
bool IsGreater(float x, float y) { return std::isnan(x) ? !std::isnan(y) : x > y; }

Pooled PoolNaively(const Batch& batch) {
  Pooled pooled;
  for (int64_t b = 0; b < batch.num_bags(); ++b) {
    for (int64_t d = 0; d < batch.dim; ++d) {
      int32_t best = -1;
      for (int64_t n = batch.splits[b]; n < batch.splits[b + 1]; ++n) {
        const int32_t u = batch.inverse[n];
        if (best < 0 ||
            IsGreater(batch.rows[u * batch.dim + d], batch.rows[best * batch.dim + d])) {
          best = u;
        }
      }
      pooled.out.push_back(best < 0 ? 0.0f : batch.rows[best * batch.dim + d]);
      pooled.argmax.push_back(best);
    }
  }
  return pooled;
}

Pooled Pool(const Batch& batch, WorkerPool* pool) {
  const int64_t size = batch.num_bags() * batch.dim;
  Pooled pooled{std::vector<float>(size, -9.0f), std::vector<int32_t>(size, -9)};
  MaxPoolRows(batch.rows.data(), batch.inverse.data(), batch.splits.data(), batch.num_bags(),
              batch.dim, pooled.out.data(), pooled.argmax.data(), pool);
  return pooled;
}

void ExpectPooled(const Batch& batch) {
  const Pooled want = PoolNaively(batch);
  for (int threads = 1; threads <= 4; ++threads) {
    SCOPED_TRACE("dim ", batch.dim, ", ", batch.num_bags(), " bags, ", threads, " threads");
    StdThreadPool pool(threads);
    const Pooled got = Pool(batch, &pool);
    EXPECT_EQ(got.out, want.out);
    EXPECT_EQ(got.argmax, want.argmax);
  }
}

// Bags of 0 to 9 rows, of which few differ, so that a row comes twice in a bag; values from
// `choices`, or any.
Batch SomeBatch(int64_t dim, const std::vector<float>& choices = {}) {
  Random random(dim);
  Batch batch{dim, 40, random.Floats(40 * dim), {}, {0}};
  if (!choices.empty()) {
    for (float& value : batch.rows) value = choices[random.Below(choices.size())];
  }
  for (int64_t b = 0; b < 100; ++b) {
    for (int64_t n = random.Below(10); n > 0; --n) {
      batch.inverse.push_back(static_cast<int32_t>(random.Below(batch.num_unique)));
    }
    batch.splits.push_back(batch.inverse.size());
  }
  return batch;
}

const int64_t kDims[] = {1, 3, 8, 16, 17, 32, 33, 64, 67};

TEST(MaxPoolIsTheGreatestOfEachElement) {
  for (int64_t dim : kDims) ExpectPooled(SomeBatch(dim));
}

// Equal values are all alike; -0 and 0 are equal, and the first one's bits are kept.
TEST(TheFirstOfEqualValuesIsTheGreatest) {
  for (int64_t dim : kDims) {
    ExpectPooled(SomeBatch(dim, {1.0f}));
    ExpectPooled(SomeBatch(dim, {-0.0f, 0.0f}));
    ExpectPooled(SomeBatch(dim, {-1.0f, -0.5f, -0.0f, 0.0f}));
  }
}

TEST(ANaNIsTheGreatestAndTheFirstOneStays) {
  const float other_nan = -std::nanf("5");
  for (int64_t dim : kDims) {
    ExpectPooled(SomeBatch(dim, {NAN, 1.0f, 2.0f}));
    ExpectPooled(SomeBatch(dim, {NAN, other_nan, kInfinity}));
    ExpectPooled(SomeBatch(dim, {other_nan}));
    ExpectPooled(SomeBatch(dim, {-kInfinity, kInfinity, NAN, -1.0f}));
  }
}

TEST(MaxPoolKeepsInfinitiesAndTheLeastOfAll) {
  constexpr float kMax = std::numeric_limits<float>::max();
  for (int64_t dim : kDims) {
    ExpectPooled(SomeBatch(dim, {-kInfinity}));
    ExpectPooled(SomeBatch(dim, {-kInfinity, -kMax, kMax, kInfinity}));
    ExpectPooled(SomeBatch(dim, {std::numeric_limits<float>::denorm_min(), 0.0f, -1e-40f}));
  }
}

TEST(AnEmptyBagIsZerosOfNoRow) {
  StdThreadPool pool(3);
  for (int64_t dim : kDims) {
    const Batch batch{dim, 1, std::vector<float>(dim, -2.0f), {0}, {0, 0, 1, 1, 1}};
    ExpectPooled(batch);
    const Pooled got = Pool(batch, &pool);
    EXPECT_EQ(got.out[0], 0.0f);
    EXPECT_EQ(got.argmax[0], -1);
    EXPECT_EQ(got.out[dim], -2.0f);
    EXPECT_EQ(got.argmax[dim], 0);
  }
  ExpectPooled({3, 0, {}, {}, {0}});
  ExpectPooled({3, 0, {}, {}, {0, 0}});
  ExpectPooled({16, 0, {}, {}, {0, 0, 0}});
}

std::vector<float> Reduce(const Batch& batch, const Pooled& pooled,
                          const std::vector<float>& grad) {
  std::vector<float> out(batch.num_unique * batch.dim, NAN);
  ReduceMaxPooledGrads(grad.data(), pooled.argmax.data(), batch.num_bags(), batch.num_unique,
                       batch.dim, out.data());
  return out;
}

TEST(TheGradientGoesToTheGreatestInOrderOfBags) {
  SerialPool serial;
  for (int64_t dim : kDims) {
    for (const std::vector<float>& choices : {std::vector<float>(), {1.0f, 2.0f}, {NAN, 1.0f}}) {
      SCOPED_TRACE("dim ", dim, ", ", choices.size(), " choices");
      const Batch batch = SomeBatch(dim, choices);
      const Pooled pooled = Pool(batch, &serial);
      const std::vector<float> grad = Random(7).Floats(pooled.out.size());
      std::vector<float> want(batch.num_unique * dim);
      for (int64_t u = 0; u < batch.num_unique; ++u) {
        for (int64_t d = 0; d < dim; ++d) {
          for (int64_t b = 0; b < batch.num_bags(); ++b) {
            if (pooled.argmax[b * dim + d] == u) want[u * dim + d] += grad[b * dim + d];
          }
        }
      }
      EXPECT_EQ(Reduce(batch, pooled, grad), want);
    }
  }
}

// A row that no bag names, or that is never the greatest, gets zeros.
TEST(RowsThatAreNeverTheGreatestGetNoGradient) {
  SerialPool serial;
  const Batch batch{2, 3, {1, 5, 2, 4, 9, 9}, {0, 1}, {0, 2, 2}};
  const Pooled pooled = Pool(batch, &serial);
  EXPECT_EQ(pooled.argmax, std::vector<int32_t>({1, 0, -1, -1}));
  EXPECT_EQ(Reduce(batch, pooled, {10, 20, 30, 40}), std::vector<float>({0, 20, 10, 0, 0, 0}));
  EXPECT_EQ(Reduce({2, 2, {}, {}, {0}}, {}, {}), std::vector<float>(4));
  EXPECT_EQ(Reduce({2, 0, {}, {}, {0}}, {}, {}), std::vector<float>());
}

// <MaxPool(rows), grad> == <rows, its gradient>, exactly for whole numbers.
TEST(TheGradientIsTheTransposeOfMaxPool) {
  SerialPool serial;
  for (int64_t dim : kDims) {
    const Batch batch = SomeBatch(dim, {-3, -2, -1, 0, 1, 2, 3});
    const Pooled pooled = Pool(batch, &serial);
    std::vector<float> grad = Random(8).Floats(pooled.out.size());
    for (float& value : grad) value = std::round(8 * value);
    const std::vector<float> reduced = Reduce(batch, pooled, grad);
    double forward = 0, backward = 0;
    for (size_t i = 0; i < grad.size(); ++i) forward += pooled.out[i] * grad[i];
    for (size_t i = 0; i < reduced.size(); ++i) backward += batch.rows[i] * reduced[i];
    EXPECT_EQ(forward, backward);
  }
}

}  // namespace
}  // namespace testing
}  // namespace sparse_emb
