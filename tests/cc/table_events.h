// What may happen to a table in the midst of a lookup.
#ifndef TF_SPARSE_EMB_TESTS_CC_TABLE_EVENTS_H_
#define TF_SPARSE_EMB_TESTS_CC_TABLE_EVENTS_H_

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/cc/table_model.h"
#include "tests/cc/testing.h"

namespace sparse_emb {
namespace testing {

constexpr int64_t kDim = 3;
const RuleCall kCall{"row_wise_adagrad", {0.5f, 1e-8f, 0.0f}, 1};

// A table of half of the keys in [0, input_dim).
inline std::unique_ptr<Table> HalfFullTable(const std::string& storage, int64_t input_dim,
                                            float max_norm = 0.0f) {
  TableOptions options = UniformTable(storage, kDim, input_dim);
  options.max_norm.limit = max_norm;
  auto table = NewTable(options);
  SerialPool pool;
  int64_t token;
  EXPECT_OK(table->Bind(kCall.rule, {0.25f}, &pool, &token));
  std::vector<int64_t> keys;
  for (int64_t key = 0; key < input_dim; key += 2) keys.push_back(key);
  const std::vector<float> rows = Random(5).Floats(keys.size() * kDim);
  EXPECT_OK(table->Upsert(keys.data(), rows.data(), keys.size(), &pool));
  return table;
}

inline void UpdateAll(Table* table, const std::vector<int64_t>& keys) {
  SerialPool pool;
  const std::vector<float> grads = Random(9).Floats(keys.size() * kDim);
  EXPECT_OK(table->Update(keys.data(), grads.data(), keys.size(), kCall, 0, true, &pool));
}

// The thread that calls does all, though it says that there are `threads`, and something happens
// after its loop of this number, from 1 on.
class EventPool final : public WorkerPool {
 public:
  EventPool(int threads, int loop, std::function<void()> event)
      : threads_(threads), loop_(loop), event_(std::move(event)) {}
  int num_threads() const override { return threads_; }
  void ParallelFor(int64_t total, int64_t, const RangeFn& fn) override {
    if (total > 0) fn(0, total);
    if (--loop_ == 0) event_();
  }
  bool has_happened() const { return loop_ <= 0; }

 private:
  const int threads_;
  int loop_;
  const std::function<void()> event_;
};

// By name. They concern every third of the keys in [0, num_keys).
inline std::vector<std::pair<std::string, std::function<void(Table*)>>> EventsOf(int64_t num_keys) {
  std::vector<int64_t> some;
  for (int64_t key = 0; key < num_keys; key += 3) some.push_back(key);
  const int64_t n = some.size();
  const std::vector<float> values = Random(3).Floats(n * kDim);
  return {
      {"nothing", [](Table*) {}},
      {"update", [=](Table* table) { UpdateAll(table, some); }},
      {"upsert",
       [=](Table* table) {
         SerialPool pool;
         EXPECT_OK(table->Upsert(some.data(), values.data(), n, &pool));
       }},
      {"scatter_add",
       [=](Table* table) {
         SerialPool pool;
         EXPECT_OK(table->ScatterAdd(some.data(), values.data(), n, &pool));
       }},
      {"insert",
       [=](Table* table) {
         SerialPool pool;
         std::vector<float> out(n * kDim);
         EXPECT_OK(table->Lookup(some.data(), n, true, Missing::kInitial, out.data(), &pool));
       }},
      {"removal",
       [=](Table* table) {
         SerialPool pool;
         EXPECT_OK(table->Remove(some.data(), n, &pool));
       }},
      {"removal, and others in their places",
       [=](Table* table) {
         SerialPool pool;
         EXPECT_OK(table->Remove(some.data(), n / 2, &pool));
         EXPECT_OK(table->Upsert(some.data() + n / 2, values.data(), n - n / 2, &pool));
       }},
      {"clear", [](Table* table) { table->Clear(); }},
      {"a new binding, whose rows are wider",
       [](Table* table) {
         SerialPool pool;
         int64_t token;
         EXPECT_OK(table->Bind("adagrad", std::vector<float>(kDim, 0.5f), &pool, &token));
         EXPECT_OK(table->Bind(kCall.rule, {0.125f}, &pool, &token));
       }},
      {"restore",
       [](Table* table) {
         SerialPool pool;
         Content content = ExportAll(table, true);
         for (float& value : content.rows) value *= 2;
         EXPECT_OK(table->Restore(content.view(), content.rule, &pool));
       }},
  };
}

}  // namespace testing
}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_TESTS_CC_TABLE_EVENTS_H_
