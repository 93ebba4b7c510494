// An update that follows a lookup of the same keys uses the rows that it found. Whatever happens in
// between, the table must be what a search would have made of it.
#include "cc/lib/last_lookup.h"

#include <unistd.h>

#include <cstdio>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "cc/lib/table_file.h"
#include "tests/cc/keys.h"
#include "tests/cc/table_model.h"
#include "tests/cc/testing.h"

namespace sparse_emb {
namespace testing {
namespace {

constexpr int64_t kDim = 5;
constexpr int64_t kKeys = 300;
const RuleCall kCall{"row_wise_adagrad", {0.5f, 1e-8f, 0.0f}, 1};

void LookUp(Table* table, const std::vector<int64_t>& keys, bool insert) {
  SerialPool pool;
  std::vector<float> out(keys.size() * kDim);
  EXPECT_OK(table->Lookup(keys.data(), keys.size(), insert, Missing::kInitial, out.data(), &pool));
}

void Bind(Table* table, int64_t* token) {
  SerialPool pool;
  EXPECT_OK(table->Bind("row_wise_adagrad", {0.25f}, &pool, token));
}

// What may happen between a lookup of keys and the update.
using Event = std::function<void(Table*, const std::vector<int64_t>& keys, int64_t* token)>;

std::vector<std::pair<std::string, Event>> Events() {
  SerialPool pool;
  const auto half = [](const std::vector<int64_t>& keys) {
    return std::vector<int64_t>(keys.begin(), keys.begin() + keys.size() / 2);
  };
  return {
      {"nothing", [](Table*, const auto&, int64_t*) {}},
      {"removal",
       [=](Table* table, const auto& keys, int64_t*) mutable {
         EXPECT_OK(table->Remove(keys.data(), half(keys).size(), &pool));
       }},
      {"removal, and others in their places",
       [=](Table* table, const auto& keys, int64_t*) mutable {
         EXPECT_OK(table->Remove(keys.data(), half(keys).size(), &pool));
         std::vector<int64_t> others;
         for (int64_t key = 0; key < kKeys; ++key) others.push_back(5000 + key);
         const std::vector<float> rows(others.size() * kDim, 9.0f);
         EXPECT_OK(table->Upsert(others.data(), rows.data(), others.size(), &pool));
       }},
      {"growth",
       [=](Table* table, const auto&, int64_t*) mutable {
         std::vector<int64_t> others;
         for (int64_t key = 0; key < 4000; ++key) others.push_back(1000 + key);
         const std::vector<float> rows(others.size() * kDim, 3.0f);
         EXPECT_OK(table->ScatterAdd(others.data(), rows.data(), others.size(), &pool));
       }},
      {"clear", [](Table* table, const auto&, int64_t*) { table->Clear(); }},
      {"restore",
       [=](Table* table, const auto&, int64_t*) mutable {
         Content content = ExportAll(table, true);
         EXPECT_OK(table->Restore(content.view(), content.rule, &pool));
       }},
      {"a load of what it holds",
       [=](Table* table, const auto&, int64_t*) mutable {
         const std::string path = "/tmp/last_lookup_test_" + std::to_string(getpid());
         LoadReport report;
         EXPECT_OK(table->Save(true, MakeTableFileWriter(path, false).get(), &pool));
         EXPECT_OK(table->Load(MakeTableFileReader(path).get(), &pool, &report));
         std::remove(path.c_str());
       }},
      {"a new binding", [](Table* table, const auto&, int64_t* token) { Bind(table, token); }},
      {"a binding of another width",
       [=](Table* table, const auto&, int64_t* token) mutable {
         EXPECT_OK(table->Bind("sgd", {}, &pool, token));
         Bind(table, token);
       }},
      {"a lookup of others",
       [=](Table* table, const auto& keys, int64_t*) { LookUp(table, half(keys), true); }},
      {"a lookup of the same that reads",
       [](Table* table, const auto& keys, int64_t*) { LookUp(table, keys, false); }},
      {"the same keys in another order",
       [](Table* table, const auto& keys, int64_t*) {
         LookUp(table, std::vector<int64_t>(keys.rbegin(), keys.rend()), true);
       }},
      {"an update of the same",
       [=](Table* table, const auto& keys, int64_t* token) mutable {
         const std::vector<float> grads(keys.size() * kDim, 0.5f);
         EXPECT_OK(
             table->Update(keys.data(), grads.data(), keys.size(), kCall, *token, true, &pool));
       }},
  };
}

TEST(AnUpdateAfterALookupIsThatOfASearch) {
  StdThreadPool threads(2);
  for (const std::string storage : kAllStorages) {
    for (const bool padded : {false, true}) {
      for (const auto& [name, event] : Events()) {
        SCOPED_TRACE(storage, ", ", name, padded ? ", padded" : "");
        TableOptions options = UniformTable(storage, kDim, 10000);
        if (padded) options.padding_key = 7;
        std::vector<int64_t> keys = DenseKeys(kKeys);
        std::vector<float> grads(kKeys * kDim);
        for (size_t i = 0; i < grads.size(); ++i) grads[i] = 0.01f * (i % 97) - 0.3f;
        Content content[2];
        for (const bool remembers : {false, true}) {
          const auto table = NewTable(options);
          int64_t token = 0;
          Bind(table.get(), &token);
          for (int step = 0; step < 3; ++step) {
            LookUp(table.get(), keys, true);
            event(table.get(), keys, &token);
            // A lookup of one other key leaves the update without the rows of the first.
            if (!remembers) LookUp(table.get(), {9999}, true);
            EXPECT_OK(table->Update(keys.data(), grads.data(), keys.size(), kCall, token, true,
                                    &threads));
          }
          LookUp(table.get(), {9999}, true);
          content[remembers] = ExportAll(table.get(), true);
        }
        ExpectSameContent(content[1], content[0]);
      }
    }
  }
}

TEST(RowsAreGivenOnceAndForTheSameKeysAndLayoutOnly) {
  float row[2];
  const std::vector<int64_t> keys = {3, 5};
  const std::vector<int64_t> others = {3, 6};
  const std::vector<float*> rows = {&row[0], &row[1]};
  std::vector<float*> got;
  LastLookup last;
  EXPECT_TRUE(!last.Take(keys.data(), 2, 0, &got));
  EXPECT_TRUE(!last.Take(keys.data(), 0, 0, &got));
  last.Keep(keys.data(), rows, 4);
  EXPECT_TRUE(!last.Take(keys.data(), 1, 4, &got));
  EXPECT_TRUE(!last.Take(others.data(), 2, 4, &got));
  EXPECT_TRUE(!last.Take(keys.data(), 2, 5, &got));
  EXPECT_TRUE(last.Take(keys.data(), 2, 4, &got));
  EXPECT_EQ(got, rows);
  EXPECT_TRUE(!last.Take(keys.data(), 2, 4, &got));
}

}  // namespace
}  // namespace testing
}  // namespace sparse_emb
