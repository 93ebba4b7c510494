// Every storage is a map from keys to rows: random operations against a model.
#include "cc/lib/table.h"

#include <cmath>
#include <string>
#include <vector>

#include "tests/cc/keys.h"
#include "tests/cc/table_model.h"
#include "tests/cc/table_operations.h"
#include "tests/cc/testing.h"

namespace sparse_emb {
namespace testing {
namespace {

// With a padding key or not, max_norm or not, counts or not.
std::vector<TableOptions> EveryOption(const TableOptions& plain, int64_t padding_key) {
  static const MaxNorm kNorms[] = {{0.7f, 2.0f}, {1.4f, 1.0f}, {0.4f, INFINITY}, {6.0f, 0.5f}};
  std::vector<TableOptions> all(8, plain);
  for (int i = 0; i < 8; ++i) {
    if (i & 1) all[i].padding_key = padding_key;
    if (i & 2) all[i].max_norm = kNorms[(i & 1) + (i & 4) / 2];
    if (i & 4) all[i].key_counts = {i & 1 ? 3 : 1, i & 2 ? 0.5 : 1.0};
  }
  return all;
}

void RunOnEveryStorage(int64_t operations, int64_t dim, WorkerPool* pool) {
  uint64_t seed = 42;
  for (const std::string storage : kAllStorages) {
    const bool index = storage == "index";
    const std::vector<int64_t> keys = index ? DenseKeys(900) : HardKeys(400);
    for (const TableOptions& options :
         EveryOption(UniformTable(storage, dim, index ? 900 : -1), keys[keys.size() / 2])) {
      SCOPED_TRACE(storage, ", padding key ", options.padding_key.has_value(), ", max_norm ",
                   options.max_norm.limit, ", ", options.key_counts.width, " counts, ",
                   pool->num_threads(), " threads");
      RandomOperations(options, keys, pool, Random(seed++)).Run(Repeats(operations / 8));
    }
  }
}

TEST(EveryStorageIsAMapFromKeysToRows) {
  SerialPool pool;
  RunOnEveryStorage(100000, 5, &pool);
}

TEST(EveryStorageGivesTheSameBitsWithFourThreads) {
  StdThreadPool pool(4);
  RunOnEveryStorage(1200, 5, &pool);
}

TEST(RowsWiderThanAVectorRegisterAreKeptWhole) {
  SerialPool pool;
  RunOnEveryStorage(10000, 67, &pool);
}

// The keys of an index table fill its shards exactly, in part, or leave some empty.
TEST(AnIndexTableTakesEveryInputDim) {
  SerialPool pool;
  for (int64_t input_dim : {1, 2, 63, 64, 65, 127, 128, 129, 1000, 4097}) {
    SCOPED_TRACE("input_dim ", input_dim);
    RandomOperations(UniformTable("index", 3, input_dim), DenseKeys(input_dim), &pool)
        .Run(Repeats(2000));
  }
}

TEST(AHashStorageWithInputDimIsTheSameMap) {
  SerialPool pool;
  RandomOperations(UniformTable("slab", 3, 100), DenseKeys(100), &pool).Run(Repeats(2000));
}

// A sum of many deltas is cut up among four threads.
TEST(ScatterAddGivesTheSameBitsWithAnyThreads) {
  constexpr int64_t kDim = 17, kKeys = 300, kDeltas = 5000;
  for (const std::string storage : kAllStorages) {
    Random random(3);
    std::vector<int64_t> keys(kDeltas);
    for (int64_t& key : keys) key = random.Below(1 + random.Below(kKeys));
    const std::vector<float> deltas = random.Floats(kDeltas * kDim);
    const TableOptions options = UniformTable(storage, kDim, kKeys);
    TableModel model(options);
    model.ScatterAdd(keys, deltas);
    model.ScatterAdd(keys, deltas);
    for (int threads : {1, 2, 4}) {
      SCOPED_TRACE(storage, ", ", threads, " threads");
      StdThreadPool pool(threads);
      const auto table = NewTable(options);
      for (int i = 0; i < 2; ++i) {
        EXPECT_OK(table->ScatterAdd(keys.data(), deltas.data(), kDeltas, &pool));
      }
      ExpectSameRows(ExportRows(table.get(), false), model.Export(false));
    }
  }
}

// A full index table skips its flags; that must end with the first removal.
TEST(AFullIndexTableCanLoseKeysAgain) {
  SerialPool pool;
  const int64_t dim = 2;
  const auto table = NewTable(UniformTable("index", dim, 200));
  TableModel model(table->options());
  const std::vector<int64_t> keys = DenseKeys(200);
  std::vector<float> out(200 * dim);
  for (int round = 0; round < 3; ++round) {
    EXPECT_OK(table->Lookup(keys.data(), 200, true, Missing::kInitial, out.data(), &pool));
    EXPECT_EQ(table->Size(), 200);
    const int64_t gone[] = {0, 77, 199};
    EXPECT_OK(table->Remove(gone, 3, &pool));
    EXPECT_OK(table->Lookup(keys.data(), 200, false, Missing::kZeros, out.data(), &pool));
    for (int64_t key : keys) {
      const bool is_gone = key == 0 || key == 77 || key == 199;
      EXPECT_EQ(out[key * dim], is_gone ? 0.0f : model.Initial(key)[0]);
    }
    if (round == 1) table->Clear();
  }
}

}  // namespace
}  // namespace testing
}  // namespace sparse_emb
