// EmbeddingDuplicate, EmbeddingGradReduce and that each is the other's transpose.
#include "cc/lib/duplicate.h"

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "cc/lib/grad_reduce.h"
#include "tests/cc/duplicate_model.h"
#include "tests/cc/testing.h"

namespace sparse_emb {
namespace testing {
namespace {

void ForEachBatch(const std::function<void(const Batch&)>& test) {
  for (int64_t dim : {1, 3, 16, 17, 32, 64}) {
    for (Combiner combiner : {Combiner::kSum, Combiner::kMean, Combiner::kSqrtN}) {
      for (Weights weights : {Weights::kNone, Weights::kSigned, Weights::kZeroSums}) {
        SCOPED_TRACE("dim ", dim, ", combiner ", Show(combiner), ", weights ", Show(weights));
        test(Batch(dim, weights, combiner));
      }
    }
  }
}

TEST(GatherRowsUndoesTheDedup) {
  for (int64_t dim : {1, 3, 16, 17, 32, 64}) {
    ExpectGathered(Batch(dim, Weights::kNone, Combiner::kSum));
  }
}

TEST(PoolRowsIsTheSumOfEachBag) { ForEachBatch(ExpectPooled); }

TEST(ReduceGradsSumsPerUniqueKey) {
  for (int64_t dim : {1, 3, 16, 17, 32, 64}) {
    ExpectReduced(Batch(dim, Weights::kNone, Combiner::kSum));
  }
}

TEST(ReducePooledGradsSumsPerUniqueKey) { ForEachBatch(ExpectPooledReduced); }

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

TEST(RowProductsAreTheGradientOfTheWeights) { ForEachBatch(ExpectProducts); }

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
