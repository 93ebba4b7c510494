// EmbeddingDuplicate, EmbeddingGradReduce and that each is the other's transpose.
#include "cc/lib/duplicate.h"

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "cc/lib/grad_reduce.h"
#include "tests/cc/testing.h"

namespace sparse_emb {
namespace testing {
namespace {

enum class Weights { kNone, kSigned, kZeroSums, kWholeNumbers };

// U rows, N values of them in B bags, some empty; N is large enough for several threads.
struct Batch {
  int64_t dim, n, num_unique = 301, bags_count = 200;
  std::vector<float> rows, value_grads, bag_grads, weights;
  std::vector<int32_t> inverse;
  std::vector<int64_t> splits, bag_of;
  Bags bags;

  Batch(int64_t width, Weights kind, Combiner combiner, bool whole_numbers = false)
      : dim(width), n(width < 4 ? 20000 : 6000) {
    Random random(width);
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
      splits.push_back(b % 5 == 0 ? splits.back()
                                  : std::min(n, splits.back() + random.Below(2 * n / bags_count)));
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
      // 1, -1, 1, -1, ...: a mean of 0 / 0. In every third bag all are 0.
      if (kind == Weights::kZeroSums) {
        weights.push_back(bag_of[i] % 3 == 0 || even_end ? 0 : place % 2 == 0 ? 1 : -1);
      }
      if (kind == Weights::kWholeNumbers) weights.push_back(random.Below(5) - 2);
    }
    bags = {splits.data(), bags_count, weights.empty() ? nullptr : weights.data(), combiner};
  }

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
void ExpectSums(const NaiveSums& want,
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

void ForEachBatch(const std::function<void(const Batch&)>& test) {
  for (int64_t dim : {1, 3, 16, 17, 32, 64}) {
    for (Combiner combiner : {Combiner::kSum, Combiner::kMean, Combiner::kSqrtN}) {
      for (Weights weights : {Weights::kNone, Weights::kSigned, Weights::kZeroSums}) {
        SCOPED_TRACE("dim ", dim, ", combiner ", Show(combiner), ", weights ", Show(weights));
        // A mean by weights of both signs divides by a sum near 0: what is left of it has no
        // digits. Those of one sign stand for them.
        Batch batch(dim, weights, combiner);
        if (weights == Weights::kSigned && combiner == Combiner::kMean) {
          for (float& weight : batch.weights) weight = std::abs(weight) + 0.01f;
        }
        test(batch);
      }
    }
  }
}

TEST(GatherRowsUndoesTheDedup) {
  for (int64_t dim : {1, 3, 16, 17, 32, 64}) {
    const Batch batch(dim, Weights::kNone, Combiner::kSum);
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
}

TEST(PoolRowsIsTheSumOfEachBag) {
  ForEachBatch([](const Batch& batch) {
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
  });
}

TEST(ReduceGradsSumsPerUniqueKey) {
  for (int64_t dim : {1, 3, 16, 17, 32, 64}) {
    const Batch batch(dim, Weights::kNone, Combiner::kSum);
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
}

TEST(ReducePooledGradsSumsPerUniqueKey) {
  ForEachBatch([](const Batch& batch) {
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
  });
}

// values [F P, width of one], those of one feature after the other, as [P, F widths].
std::vector<float> SideBySide(const std::vector<float>& values, int64_t num_features,
                              int64_t width) {
  const int64_t rows = static_cast<int64_t>(values.size()) / width / num_features;
  std::vector<float> out;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t f = 0; f < num_features; ++f) {
      const float* value = values.data() + (f * rows + r) * width;
      out.insert(out.end(), value, value + width);
    }
  }
  return out;
}

TEST(FeaturesSideBySideHaveTheValuesAndSumsOfThoseOneAfterTheOther) {
  for (int64_t num_features : {2, 5, 40}) {
    ForEachBatch([&](const Batch& batch) {
      const int64_t dim = batch.dim;
      Bags beside = batch.bags;
      beside.num_features = num_features;
      SerialPool serial;
      std::vector<float> pooled(batch.bags_count * dim), gathered(batch.n * dim);
      std::vector<float> summed(batch.num_unique * dim), pooled_sums(summed.size());
      std::vector<float> products(batch.n);
      const float* rows = batch.rows.data();
      const int32_t* inverse = batch.inverse.data();
      PoolRows(rows, inverse, batch.bags, dim, pooled.data(), &serial);
      GatherRows(rows, inverse, batch.n, dim, 1, gathered.data(), &serial);
      ReduceGrads(batch.value_grads.data(), inverse, batch.n, batch.num_unique, dim, 1,
                  summed.data(), &serial);
      ReducePooledGrads(batch.bag_grads.data(), inverse, batch.bags, batch.num_unique, dim,
                        pooled_sums.data(), &serial);
      RowProducts(rows, inverse, batch.bags, batch.bag_grads.data(), dim, products.data(), &serial);
      const std::vector<float> value_grads = SideBySide(batch.value_grads, num_features, dim);
      const std::vector<float> bag_grads = SideBySide(batch.bag_grads, num_features, dim);
      for (int threads = 1; threads <= 4; ++threads) {
        StdThreadPool pool(threads, threads);
        std::vector<float> values(pooled.size(), NAN), sums(summed.size(), NAN);
        PoolRows(rows, inverse, beside, dim, values.data(), &pool);
        EXPECT_EQ(values, SideBySide(pooled, num_features, dim));
        ReducePooledGrads(bag_grads.data(), inverse, beside, batch.num_unique, dim, sums.data(),
                          &pool);
        EXPECT_EQ(sums, pooled_sums);
        values.assign(gathered.size(), NAN);
        GatherRows(rows, inverse, batch.n, dim, num_features, values.data(), &pool);
        EXPECT_EQ(values, SideBySide(gathered, num_features, dim));
        ReduceGrads(value_grads.data(), inverse, batch.n, batch.num_unique, dim, num_features,
                    sums.data(), &pool);
        EXPECT_EQ(sums, summed);
        std::vector<float> out(batch.n, NAN);
        RowProducts(rows, inverse, beside, bag_grads.data(), dim, out.data(), &pool);
        EXPECT_EQ(out, products);
      }
    });
  }
}

TEST(RowProductsAreTheGradientOfTheWeights) {
  ForEachBatch([](const Batch& batch) {
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
  });
}

// Each table's gradients are reduced as those of a table alone are, bit by bit.
TEST(GradsOfSeveralTablesAreReducedTableByTable) {
  for (int64_t dim : {1, 3, 16, 17}) {
    for (int64_t num_tables : {1, 2, 5}) {
      Random random(num_tables);
      std::vector<int64_t> splits = {0}, unique_splits = {0};
      std::vector<int32_t> inverse;
      for (int64_t t = 0; t < num_tables; ++t) {
        // Tables without keys, and such on which no key comes twice.
        const int64_t num_unique = t == 3 ? 0 : 1 + random.Below(60);
        const int64_t n = t == 3 ? 0 : num_unique + (t == 1 ? 0 : random.Below(2000));
        for (int64_t i = 0; i < n; ++i) {
          const int64_t u = i < num_unique ? i : random.Below(num_unique);
          inverse.push_back(static_cast<int32_t>(unique_splits[t] + u));
        }
        splits.push_back(splits[t] + n);
        unique_splits.push_back(unique_splits[t] + num_unique);
      }
      const std::vector<float> all = random.Floats(splits.back() * dim);
      std::vector<const float*> grads;
      for (int64_t t = 0; t < num_tables; ++t) grads.push_back(all.data() + splits[t] * dim);
      SerialPool serial;
      std::vector<float> want(unique_splits.back() * dim);
      ReduceGrads(all.data(), inverse.data(), splits.back(), unique_splits.back(), dim, 1,
                  want.data(), &serial);
      for (int threads = 1; threads <= 4; ++threads) {
        SCOPED_TRACE("dim ", dim, ", ", num_tables, " tables, ", threads, " threads");
        StdThreadPool pool(threads);
        std::vector<float> out(want.size(), NAN);
        ReduceGradsByTable(grads, splits.data(), inverse.data(), unique_splits.data(), dim,
                           out.data(), &pool);
        EXPECT_EQ(out, want);
      }
    }
  }
}

double InnerProduct(const std::vector<float>& x, const std::vector<float>& y) {
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) sum += static_cast<double>(x[i]) * y[i];
  return sum;
}

// <Duplicate(rows), grad> == <rows, GradReduce(grad)>, exactly where all are whole numbers.
TEST(GradReduceIsTheTransposeOfDuplicate) {
  StdThreadPool pool(3);
  for (int64_t dim : {1, 3, 16, 17, 32, 64}) {
    for (Combiner combiner : {Combiner::kSum, Combiner::kMean, Combiner::kSqrtN}) {
      const bool sum = combiner == Combiner::kSum;
      const Batch batch(dim, sum ? Weights::kWholeNumbers : Weights::kNone, combiner, sum);
      std::vector<float> pooled(batch.bags_count * dim), reduced(batch.num_unique * dim),
          values(batch.n * dim);
      PoolRows(batch.rows.data(), batch.inverse.data(), batch.bags, dim, pooled.data(), &pool);
      ReducePooledGrads(batch.bag_grads.data(), batch.inverse.data(), batch.bags, batch.num_unique,
                        dim, reduced.data(), &pool);
      const double forward = InnerProduct(pooled, batch.bag_grads);
      EXPECT_NEAR(InnerProduct(batch.rows, reduced), forward, sum ? 0 : 1e-3);
      GatherRows(batch.rows.data(), batch.inverse.data(), batch.n, dim, 1, values.data(), &pool);
      ReduceGrads(batch.value_grads.data(), batch.inverse.data(), batch.n, batch.num_unique, dim, 1,
                  reduced.data(), &pool);
      EXPECT_NEAR(InnerProduct(batch.rows, reduced), InnerProduct(values, batch.value_grads),
                  sum ? 0 : 1e-2);
    }
  }
}

TEST(AnEmptyBatchWorksEverywhere) {
  StdThreadPool pool(2);
  const int64_t splits[] = {0, 0, 0};
  std::vector<float> out(2 * 3, NAN);
  for (Combiner combiner : {Combiner::kSum, Combiner::kMean, Combiner::kSqrtN}) {
    const Bags no_bags{splits, 0, nullptr, combiner}, empty_bags{splits, 2, nullptr, combiner};
    GatherRows(nullptr, nullptr, 0, 3, 1, nullptr, &pool);
    PoolRows(nullptr, nullptr, no_bags, 3, nullptr, &pool);
    RowProducts(nullptr, nullptr, empty_bags, out.data(), 3, nullptr, &pool);
    ReduceGrads(nullptr, nullptr, 0, 0, 3, 1, nullptr, &pool);
    ReducePooledGrads(nullptr, nullptr, no_bags, 0, 3, nullptr, &pool);
    const std::vector<float> zeros(out.size());
    out.assign(out.size(), NAN);
    PoolRows(nullptr, nullptr, empty_bags, 3, out.data(), &pool);
    EXPECT_EQ(out, zeros);
    // Rows that no value names get no gradient.
    out.assign(out.size(), NAN);
    ReduceGrads(nullptr, nullptr, 0, 2, 3, 1, out.data(), &pool);
    EXPECT_EQ(out, zeros);
    out.assign(out.size(), NAN);
    ReducePooledGrads(zeros.data(), nullptr, empty_bags, 2, 3, out.data(), &pool);
    EXPECT_EQ(out, zeros);
  }
}

}  // namespace
}  // namespace testing
}  // namespace sparse_emb
