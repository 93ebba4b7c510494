// The copies of a loop for each instruction set give the same bits.
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <limits>
#include <string>
#include <vector>

#include "cc/lib/cpu_dispatch.h"
#include "cc/lib/duplicate.h"
#include "cc/lib/grad_reduce.h"
#include "cc/lib/initial_row.h"
#include "cc/lib/max_pool.h"
#include "cc/lib/update_rules.h"
#include "tests/cc/digest.h"
#include "tests/cc/testing.h"

namespace sparse_emb {
namespace testing {
namespace {

// FNV-1a over the bits of floats.
class BitHash {
 public:
  void Add(const std::vector<float>& values) {
    for (float value : values) {
      uint32_t bits;
      std::memcpy(&bits, &value, sizeof(bits));
      hash_ = (hash_ ^ bits) * 0x100000001b3ull;
    }
  }
  uint64_t value() const { return hash_; }

 private:
  uint64_t hash_ = 0xcbf29ce484222325ull;
};

void AddInitialRows(int64_t dim, BitHash* hash) {
  for (const char* kind : {"constant", "uniform", "normal", "truncated_normal"}) {
    InitialRow initial_row;
    EXPECT_OK(InitialRow::Make(kind, -0.3f, 0.7f, 11, &initial_row));
    std::vector<float> row(dim);
    for (int64_t key = -50; key < 50; ++key) {
      initial_row.Fill(key * 0x123456789abcdll, row.data(), dim);
      hash->Add(row);
    }
  }
}

void AddDuplicates(int64_t dim, Random* random, BitHash* hash) {
  SerialPool pool;
  constexpr int64_t kUnique = 50, kValues = 400, kBags = 41;
  const std::vector<float> rows = random->Floats(kUnique * dim);
  const std::vector<float> weights = random->Floats(kValues);
  std::vector<int32_t> inverse(kValues);
  for (int32_t& u : inverse) u = static_cast<int32_t>(random->Below(kUnique));
  std::vector<int64_t> splits(kBags + 1);
  for (int64_t b = 0; b <= kBags; ++b) splits[b] = kValues * b * b / (kBags * kBags);
  const std::vector<float> bag_grads = random->Floats(kBags * dim);

  std::vector<float> values(kValues * dim), pooled(kBags * dim), reduced(kUnique * dim),
      products(kValues);
  GatherRows(rows.data(), inverse.data(), kValues, dim, 1, values.data(), &pool);
  hash->Add(values);
  ReduceGrads(values.data(), inverse.data(), kValues, kUnique, dim, 1, reduced.data(), &pool);
  hash->Add(reduced);
  for (Combiner combiner : {Combiner::kSum, Combiner::kMean, Combiner::kSqrtN}) {
    for (const float* w : {static_cast<const float*>(nullptr), weights.data()}) {
      const Bags bags{splits.data(), kBags, w, combiner};
      PoolRows(rows.data(), inverse.data(), bags, dim, pooled.data(), &pool);
      hash->Add(pooled);
      ReducePooledGrads(bag_grads.data(), inverse.data(), bags, kUnique, dim, reduced.data(),
                        &pool);
      hash->Add(reduced);
      RowProducts(rows.data(), inverse.data(), bags, bag_grads.data(), dim, products.data(), &pool);
      hash->Add(products);
    }
  }
}

void AddUpdatedRows(int64_t dim, Random* random, BitHash* hash) {
  SerialPool pool;
  const RuleCall rules[] = {{"sgd", {0.1f, 0.01f}, 1},
                            {"row_wise_adagrad", {0.1f, 1e-8f, 0.01f}, 1},
                            {"row_wise_adam", {0.1f, 0.9f, 0.999f, 1e-8f, 0.01f}, 1}};
  for (RuleCall rule : rules) {
    RuleInfo info;
    EXPECT_OK(FindRule(rule.rule, &info));
    std::vector<float> row = random->Floats(dim);
    row.resize(dim + info.state_width(dim));
    for (rule.step = 1; rule.step <= 20; ++rule.step) {
      float* address = row.data();
      ApplyRule(rule, &address, random->Floats(dim).data(), 1, dim, dim, &pool);
      hash->Add(row);
    }
  }
}

void AddMaxPooled(int64_t dim, Random* random, BitHash* hash) {
  SerialPool pool;
  constexpr int64_t kUnique = 50, kValues = 400, kBags = 41;
  std::vector<float> rows = random->Floats(kUnique * dim);
  for (float& value : rows) {
    if (random->OneIn(20)) value = random->OneIn(2) ? NAN : -0.0f;
  }
  std::vector<int32_t> inverse(kValues), argmax(kBags * dim);
  for (int32_t& u : inverse) u = static_cast<int32_t>(random->Below(kUnique));
  std::vector<int64_t> splits(kBags + 1);
  for (int64_t b = 0; b <= kBags; ++b) splits[b] = kValues * b * b / (kBags * kBags);
  std::vector<float> pooled(kBags * dim);
  MaxPoolRows(rows.data(), inverse.data(), splits.data(), kBags, dim, pooled.data(), argmax.data(),
              &pool);
  hash->Add(pooled);
  hash->Add(std::vector<float>(argmax.begin(), argmax.end()));
}

// What `cc_tests --digest` prints with SPARSE_EMB_ISA set so.
std::string DigestOf(const std::string& isa) {
  // The shell that popen starts runs the same binary again.
  const std::string command =
      Join("SPARSE_EMB_ISA=", isa, " exec /proc/", getpid(), "/exe --digest");
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return "popen failed";
  char line[200] = {};
  const bool read = std::fgets(line, sizeof(line), pipe) != nullptr;
  const int code = pclose(pipe);
  return read && code == 0 ? line : Join("exit code ", code);
}

}  // namespace

std::string Digest() {
  BitHash hash;
  Random random(3);
  for (int64_t dim : {1, 3, 7, 8, 15, 16, 17, 32, 33, 64, 100}) {
    AddInitialRows(dim, &hash);
    AddDuplicates(dim, &random, &hash);
    AddUpdatedRows(dim, &random, &hash);
    AddMaxPooled(dim, &random, &hash);
  }
  return Join(IsaName(BestIsa()), " ", hash.value());
}

TEST(EveryInstructionSetGivesTheSameBits) {
  const std::string here = Digest();
  const std::string bits = here.substr(here.find(' '));
  for (Isa isa : {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512}) {
    // This process may have been lowered itself; a child is lowered by its own setting alone.
    const std::string digest = DigestOf(IsaName(isa));
    EXPECT_EQ(digest.substr(std::min(digest.size(), digest.find(' '))), bits + "\n");
    if (isa == Isa::kBaseline) EXPECT_EQ(digest.substr(0, digest.find(' ')), "baseline");
    if (isa <= BestIsa()) EXPECT_EQ(digest.substr(0, digest.find(' ')), IsaName(isa));
  }
}

}  // namespace testing
}  // namespace sparse_emb
