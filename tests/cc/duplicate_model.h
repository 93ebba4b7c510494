// EmbeddingDuplicate and EmbeddingGradReduce by plain loops in double precision.
#ifndef TF_SPARSE_EMB_TESTS_CC_DUPLICATE_MODEL_H_
#define TF_SPARSE_EMB_TESTS_CC_DUPLICATE_MODEL_H_

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "cc/lib/duplicate.h"
#include "cc/lib/grad_reduce.h"
#include "tests/cc/testing.h"

namespace sparse_emb {
namespace testing {

enum class Weights { kNone, kSigned, kZeroSums, kWholeNumbers };

// U rows, N values of them in B bags, some empty.
struct Batch {
  int64_t dim, n, num_unique, bags_count;
  std::vector<float> rows, value_grads, bag_grads, weights;
  std::vector<int32_t> inverse;
  std::vector<int64_t> splits, bag_of;
  Bags bags;

  // N is large enough for several threads.
  Batch(int64_t dim, Weights kind, Combiner combiner, bool whole_numbers = false)
      : Batch(Random(dim), dim, dim < 4 ? 20000 : 6000, 301, 200, kind, combiner, whole_numbers) {}

  // U > 1, B > 0.
  Batch(Random random, int64_t dim, int64_t n, int64_t num_unique, int64_t bags_count, Weights kind,
        Combiner combiner, bool whole_numbers = false)
      : dim(dim), n(n), num_unique(num_unique), bags_count(bags_count) {
    rows = random.Floats(num_unique * dim);
    value_grads = random.Floats(n * dim);
    bag_grads = random.Floats(bags_count * dim);
    if (whole_numbers) {
      for (auto* values : {&rows, &value_grads, &bag_grads}) {
        for (float& value : *values) value = std::round(4 * value);
      }
    }
    // Few keys are hot; the last one does not come at all.
    for (int64_t i = 0; i < n; ++i) {
      inverse.push_back(static_cast<int32_t>(random.Below(1 + random.Below(num_unique - 1))));
    }
    splits = {0};
    for (int64_t b = 1; b < bags_count; ++b) {
      splits.push_back(b % 5 == 0
                           ? splits.back()
                           : std::min(n, splits.back() + random.Below(2 * n / bags_count + 1)));
    }
    splits.push_back(n);
    bag_of.resize(n);
    for (int64_t b = 0; b < bags_count; ++b) {
      for (int64_t i = splits[b]; i < splits[b + 1]; ++i) bag_of[i] = b;
    }
    for (int64_t i = 0; i < n; ++i) {
      const int64_t place = i - splits[bag_of[i]];
      const bool even_end = place / 2 * 2 + splits[bag_of[i]] + 1 == splits[bag_of[i] + 1];
      if (kind == Weights::kSigned) weights.push_back(random.Float());
      // A mean by weights of both signs divides by a sum near 0: what is left of it has no digits.
      // Those of one sign stand for them.
      if (kind == Weights::kSigned && combiner == Combiner::kMean) {
        weights.back() = std::abs(weights.back()) + 0.01f;
      }
      // 1, -1, 1, -1, ...: a mean of 0 / 0. In every third bag all are 0.
      if (kind == Weights::kZeroSums) {
        weights.push_back(bag_of[i] % 3 == 0 || even_end ? 0 : place % 2 == 0 ? 1 : -1);
      }
      if (kind == Weights::kWholeNumbers) weights.push_back(random.Below(5) - 2);
    }
    bags = {splits.data(), bags_count, weights.empty() ? nullptr : weights.data(), combiner};
  }
  Batch(const Batch&) = delete;  // bags points into it

  double Weight(int64_t i) const { return weights.empty() ? 1.0 : weights[i]; }

  // c[i] of the header.
  double Coefficient(int64_t i) const {
    double sum = 0, squares = 0;
    for (int64_t j = splits[bag_of[i]]; j < splits[bag_of[i] + 1]; ++j) {
      sum += Weight(j);
      squares += Weight(j) * Weight(j);
    }
    const double divisor = bags.combiner == Combiner::kSum    ? 1
                           : bags.combiner == Combiner::kMean ? sum
                                                              : std::sqrt(squares);
    return divisor == 0 ? 0 : Weight(i) / divisor;
  }
};

// Sums of products with what rounding may cost them.
struct NaiveSums {
  std::vector<double> sum, size;
  explicit NaiveSums(int64_t n) : sum(n), size(n) {}
  void Add(int64_t at, double product) {
    sum[at] += product;
    size[at] += std::abs(product);
  }
};

// Runs fn(out, pool) with 1 to 4 threads: near the sums with one, the same bits with the others.
inline void ExpectSums(const NaiveSums& want,
                       const std::function<void(float* out, WorkerPool* pool)>& fn) {
  std::vector<float> first(want.sum.size(), NAN);
  SerialPool serial;
  fn(first.data(), &serial);
  for (size_t i = 0; i < first.size(); ++i) {
    EXPECT_NEAR(first[i], want.sum[i], 4e-5 * want.size[i] + 1e-30);
  }
  for (int threads = 1; threads <= 4; ++threads) {
    SCOPED_TRACE(threads, " threads");
    StdThreadPool pool(threads, threads);
    std::vector<float> out(first.size(), NAN);
    fn(out.data(), &pool);
    EXPECT_EQ(out, first);
  }
}

inline void ExpectGathered(const Batch& batch) {
  const int64_t dim = batch.dim;
  std::vector<float> want;
  for (int32_t u : batch.inverse) {
    want.insert(want.end(), &batch.rows[u * dim], &batch.rows[u * dim] + dim);
  }
  for (int threads = 1; threads <= 4; ++threads) {
    StdThreadPool pool(threads);
    std::vector<float> values(want.size(), NAN);
    GatherRows(batch.rows.data(), batch.inverse.data(), batch.n, dim, 1, values.data(), &pool);
    EXPECT_EQ(values, want);
  }
}

inline void ExpectPooled(const Batch& batch) {
  NaiveSums want(batch.bags_count * batch.dim);
  for (int64_t i = 0; i < batch.n; ++i) {
    const double c = batch.Coefficient(i);
    for (int64_t d = 0; d < batch.dim; ++d) {
      want.Add(batch.bag_of[i] * batch.dim + d, c * batch.rows[batch.inverse[i] * batch.dim + d]);
    }
  }
  ExpectSums(want, [&](float* out, WorkerPool* pool) {
    PoolRows(batch.rows.data(), batch.inverse.data(), batch.bags, batch.dim, out, pool);
  });
}

inline void ExpectProducts(const Batch& batch) {
  NaiveSums want(batch.n);
  for (int64_t i = 0; i < batch.n; ++i) {
    for (int64_t d = 0; d < batch.dim; ++d) {
      want.Add(i, static_cast<double>(batch.rows[batch.inverse[i] * batch.dim + d]) *
                      batch.bag_grads[batch.bag_of[i] * batch.dim + d]);
    }
  }
  ExpectSums(want, [&](float* out, WorkerPool* pool) {
    RowProducts(batch.rows.data(), batch.inverse.data(), batch.bags, batch.bag_grads.data(),
                batch.dim, out, pool);
  });
}

inline void ExpectReduced(const Batch& batch) {
  const int64_t dim = batch.dim;
  NaiveSums want(batch.num_unique * dim);
  for (int64_t i = 0; i < batch.n; ++i) {
    for (int64_t d = 0; d < dim; ++d) {
      want.Add(batch.inverse[i] * dim + d, batch.value_grads[i * dim + d]);
    }
  }
  ExpectSums(want, [&](float* out, WorkerPool* pool) {
    ReduceGrads(batch.value_grads.data(), batch.inverse.data(), batch.n, batch.num_unique, dim, 1,
                out, pool);
  });
}

inline void ExpectPooledReduced(const Batch& batch) {
  NaiveSums want(batch.num_unique * batch.dim);
  for (int64_t i = 0; i < batch.n; ++i) {
    const double c = batch.Coefficient(i);
    for (int64_t d = 0; d < batch.dim; ++d) {
      want.Add(batch.inverse[i] * batch.dim + d,
               c * batch.bag_grads[batch.bag_of[i] * batch.dim + d]);
    }
  }
  ExpectSums(want, [&](float* out, WorkerPool* pool) {
    ReducePooledGrads(batch.bag_grads.data(), batch.inverse.data(), batch.bags, batch.num_unique,
                      batch.dim, out, pool);
  });
}

}  // namespace testing
}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_TESTS_CC_DUPLICATE_MODEL_H_
