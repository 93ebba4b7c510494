// What fuzzers found worth keeping is run again: inputs that reach all they have reached, and those
// that showed a defect.
#include <dirent.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "tests/cc/testing.h"
#include "tests/fuzz/targets.h"

namespace sparse_emb {
namespace testing {
namespace {

// The tests are run from the repository's root.
const std::string kCorpus = "tests/fuzz/corpus/";

std::vector<std::string> FilesIn(const std::string& folder) {
  std::vector<std::string> files;
  DIR* const entries = opendir(folder.c_str());
  if (entries == nullptr) return files;
  while (const dirent* entry = readdir(entries)) {
    if (entry->d_name[0] != '.') files.push_back(entry->d_name);
  }
  closedir(entries);
  std::sort(files.begin(), files.end());
  return files;
}

TEST(EveryInputOfTheCorpusGivesWhatTheModelGives) {
  for (const FuzzTarget& target : kFuzzTargets) {
    const std::string folder = kCorpus + target.name;
    SCOPED_TRACE(folder);
    const std::vector<std::string> names = FilesIn(folder);
    EXPECT_TRUE(!names.empty());
    for (const std::string& name : names) {
      SCOPED_TRACE(name);
      std::ifstream file(folder + "/" + name, std::ios::binary);
      const std::vector<uint8_t> bytes{std::istreambuf_iterator<char>(file), {}};
      target.run(bytes.data(), bytes.size());
    }
  }
}

}  // namespace
}  // namespace testing
}  // namespace sparse_emb
