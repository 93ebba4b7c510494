// Tables that were saved, for the tests of table_file.h and of Table's Save and Load.
#ifndef TF_SPARSE_EMB_TESTS_CC_SAVED_TABLES_H_
#define TF_SPARSE_EMB_TESTS_CC_SAVED_TABLES_H_

#include <dirent.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "cc/lib/table_file.h"
#include "tests/cc/keys.h"
#include "tests/cc/table_model.h"
#include "tests/cc/testing.h"

namespace sparse_emb {
namespace testing {

inline constexpr int64_t kDim = 3, kInputDim = 4000;

// A folder that goes with its files.
class Folder {
 public:
  Folder() {
    char name[] = "/tmp/table_file_test_XXXXXX";
    path_ = mkdtemp(name);
  }
  ~Folder() {
    for (const std::string& file : Files()) unlink((*this / file).c_str());
    rmdir(path_.c_str());
  }
  std::string operator/(const std::string& file) const { return path_ + "/" + file; }
  std::vector<std::string> Files() const {
    std::vector<std::string> files;
    DIR* folder = opendir(path_.c_str());
    while (const dirent* entry = readdir(folder)) {
      if (entry->d_name[0] != '.') files.push_back(entry->d_name);
    }
    closedir(folder);
    std::sort(files.begin(), files.end());
    return files;
  }

 private:
  std::string path_;
};

inline std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline void WriteFile(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

inline void Bind(Table* table, const std::string& rule, float state = 0.5f) {
  SerialPool pool;
  RuleInfo info;
  EXPECT_OK(FindRule(rule, &info));
  int64_t token = 0;
  EXPECT_OK(table->Bind(rule, std::vector<float>(info.state_width(table->options().dim), state),
                        &pool, &token));
}

// A table of 2 counts a row under row-wise Adagrad, every part of whose rows differs.
inline std::unique_ptr<Table> FilledTable(const std::string& storage, int64_t rows = 1500,
                                          int64_t dim = kDim) {
  SerialPool pool;
  TableOptions options = UniformTable(storage, dim, kInputDim);
  options.key_counts = {2, 0.75};
  auto table = NewTable(options);
  Bind(table.get(), "row_wise_adagrad");
  const std::vector<int64_t> keys = DenseKeys(rows);
  const RuleCall adagrad{"row_wise_adagrad", {0.1f, 1e-8f, 0.0f}, 1};
  const std::vector<float> grads = Random(5).Floats(rows * dim);
  EXPECT_OK(table->Update(keys.data(), grads.data(), rows, adagrad, 0, true, &pool));
  std::vector<double> amounts;
  for (int64_t i = 0; i < 2 * rows; ++i) amounts.push_back(i);
  EXPECT_OK(table->Count(keys.data(), amounts.data(), rows, true, &pool));
  EXPECT_OK(table->Update(keys.data(), grads.data(), rows / 2, adagrad, 0, true, &pool));
  return table;
}

inline Status Save(Table* table, const std::string& path, bool with_state = true) {
  StdThreadPool pool(2);
  return table->Save(with_state, MakeTableFileWriter(path, true).get(), &pool);
}

inline Status Load(Table* table, const std::string& path, LoadReport* report = nullptr) {
  StdThreadPool pool(2);
  LoadReport ignored;
  return table->Load(MakeTableFileReader(path).get(), &pool, report == nullptr ? &ignored : report);
}

// Saves of a table to files 0, 1, ... of a folder, the first whole.
struct Chain {
  Folder folder;
  Table* table;
  int64_t log;
  std::vector<std::string> paths;

  explicit Chain(Table* saved) : table(saved), log(saved->OpenLog()) {}

  Status Save(bool increment) {
    StdThreadPool pool(2);
    const std::string path = folder / std::to_string(paths.size());
    const std::string name = "save " + std::to_string(paths.size());
    Status status =
        table->SaveInChain(log, name, increment, MakeTableFileWriter(path, false).get(), &pool);
    if (!status.ok()) return status;
    paths.push_back(path);
    return table->ConfirmSave(log);
  }

  std::vector<std::unique_ptr<RowSource>> Open() const {
    std::vector<std::unique_ptr<RowSource>> sources;
    for (size_t i = 0; i < paths.size(); ++i) {
      sources.push_back(MakeTableFileReader(paths[i], "", "save " + std::to_string(i)));
    }
    return sources;
  }

  Status Load(Table* to, int64_t to_log = 0) const {
    StdThreadPool pool(2);
    const auto files = Open();
    std::vector<RowSource*> sources;
    for (const auto& file : files) sources.push_back(file.get());
    LoadReport report;
    return to->LoadChains({sources}, {}, to_log, &pool, &report);
  }

  int64_t CountWhole(Table* to, Status* problem) const {
    const auto files = Open();
    std::vector<RowSource*> sources;
    for (const auto& file : files) sources.push_back(file.get());
    int64_t whole = -1;
    EXPECT_OK(to->CheckChains({sources}, {}, &whole, problem));
    return whole;
  }
};

}  // namespace testing
}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_TESTS_CC_SAVED_TABLES_H_
