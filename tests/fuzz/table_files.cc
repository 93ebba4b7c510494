#include <sys/mman.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "cc/lib/table_file.h"
#include "tests/cc/saved_tables.h"
#include "tests/cc/table_file_bytes.h"
#include "tests/cc/table_operations.h"
#include "tests/fuzz/targets.h"

namespace sparse_emb {
namespace testing {
namespace {

// A file that is in no folder.
class FileInMemory {
 public:
  explicit FileInMemory(const std::string& bytes) : fd_(memfd_create("table", MFD_CLOEXEC)) {
    EXPECT_EQ(write(fd_, bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  }
  ~FileInMemory() { close(fd_); }
  FileInMemory(const FileInMemory&) = delete;
  FileInMemory& operator=(const FileInMemory&) = delete;
  std::string path() const { return Join("/proc/self/fd/", fd_); }

 private:
  const int fd_;
};

// A table with the keys that one of `servers` servers has of 16, saved three times: whole, and what
// has changed twice.
std::vector<std::string> SavedChain(const Share& share) {
  SerialPool pool;
  TableOptions options = UniformTable("slab", kDim, kInputDim);
  options.key_counts = {2, 0.75};
  const auto table = NewTable(options);
  Bind(table.get(), "row_wise_adagrad");
  std::vector<int64_t> keys;
  for (int64_t key = 0; key < 16; ++key) {
    if (share.Has(key)) keys.push_back(key);
  }
  Chain chain(table.get());
  for (int save = 0; save < 3; ++save) {
    const int64_t n = save == 0 ? keys.size() : 3;
    const std::vector<float> rows = Random(save).Floats(n * kDim);
    const std::vector<double> amounts(n * 2, 1 + save);
    EXPECT_OK(table->Upsert(keys.data(), rows.data(), n, &pool));
    EXPECT_OK(table->Count(keys.data(), amounts.data(), n, true, &pool));
    if (save == 2) EXPECT_OK(table->Remove(keys.data() + n - 1, 1, &pool));
    EXPECT_OK(chain.Save(save > 0));
  }
  std::vector<std::string> files;
  for (const std::string& path : chain.paths) files.push_back(ReadFile(path));
  return files;
}

std::string SavedTable() {
  const Folder folder;
  const auto table = FilledTable("slab", 12);
  EXPECT_OK(Save(table.get(), folder / "table"));
  return ReadFile(folder / "table");
}

std::string Changed(std::string bytes, Random* random) {
  constexpr uint64_t kNumbers[] = {0,          1,         2,          255,
                                   1u << 16,   INT32_MAX, UINT32_MAX, 1ull << 32,
                                   1ull << 48, INT64_MAX, 1ull << 63, UINT64_MAX};
  for (int64_t change = random->Below(6); change > 0 && !bytes.empty(); --change) {
    const size_t at = random->Below(bytes.size());
    const uint64_t number = kNumbers[random->Below(std::size(kNumbers))];
    const size_t length = 1 + random->Below(64);
    switch (random->Below(6)) {
      case 0:
        bytes[at] = static_cast<char>(random->Below(256));
        break;
      case 1:
        if (at + 4 <= bytes.size()) Put(static_cast<uint32_t>(number), at, &bytes);
        break;
      case 2:
        if (at + 8 <= bytes.size()) Put(number, at, &bytes);
        break;
      case 3:
        bytes.erase(at, length);
        break;
      case 4:
        bytes.insert(random->Below(bytes.size()), bytes.substr(at, length));
        break;
      default:
        bytes.resize(at);
    }
  }
  if (!random->OneIn(4)) Seal(&bytes);
  return bytes;
}

// A table of another or the same state, that takes what the files hold or refuses it.
std::unique_ptr<Table> SomeTable(Random* random) {
  auto table = FilledTable(kAllStorages[random->Below(5)], 8);
  if (!random->OneIn(3)) return table;
  TableOptions options = table->options();
  if (random->OneIn(2)) options.max_rows = 10;
  return NewTable(options);
}

// What a load has left: all as it was, or a table that comes back when it is saved and loaded.
void ExpectWhole(Table* table, const Status& loaded, const Content& before) {
  const Content after = ExportAll(table, true);
  if (!loaded.ok()) return ExpectSameContent(after, before);
  EXPECT_EQ(table->Size(), after.size());
  EXPECT_OK(table->CheckKeys(after.keys.data(), after.size()));
  SerialPool pool;
  SavedRows saved;
  EXPECT_OK(table->Save(/*with_state=*/true, &saved, &pool));
  const auto again = NewTable(table->options());
  LoadReport report;
  EXPECT_OK(again->Load(&saved, &pool, &report));
  ExpectSameContent(ExportAll(again.get(), true), after);
}

}  // namespace

void FuzzTableFile(const uint8_t* data, size_t size) {
  static const std::string whole = SavedTable();
  static const std::vector<std::string> chain = SavedChain({});
  Random random(data, size);
  const auto table = SomeTable(&random);
  std::string bytes;
  if (random.OneIn(4)) {
    bytes.assign(reinterpret_cast<const char*>(data) + size - random.BytesLeft(),
                 random.BytesLeft());
  } else {
    bytes = Changed(random.OneIn(2) ? whole : chain[random.Below(3)], &random);
  }
  const FileInMemory file(bytes);
  const Content before = ExportAll(table.get(), true);
  SerialPool pool;
  LoadReport report;
  const Status status = table->Load(MakeTableFileReader(file.path()).get(), &pool, &report);
  EXPECT_TRUE(status.ok() || status.message.find(file.path()) != std::string::npos);
  EXPECT_EQ(report.Json().back(), '}');
  ExpectWhole(table.get(), status, before);
}

void FuzzTableChain(const uint8_t* data, size_t size) {
  static const std::vector<std::string> saved[] = {SavedChain({}), SavedChain({0, 2}),
                                                   SavedChain({1, 2})};
  Random random(data, size);
  const auto table = SomeTable(&random);
  const int64_t servers = 1 + random.Below(2), saves = 1 + random.Below(3);
  const int64_t num_servers = 1 + random.Below(3);
  const Share share{random.Below(num_servers), num_servers};

  std::vector<std::unique_ptr<FileInMemory>> files;
  std::vector<std::unique_ptr<RowSource>> readers;
  Chains checked(servers), loaded(servers);
  for (int64_t s = 0; s < servers; ++s) {
    for (int64_t p = 0; p < saves; ++p) {
      // Mostly the file that belongs there.
      const int64_t which = random.OneIn(8) ? random.Below(3) : p;
      const std::string& bytes = saved[servers == 1 ? 0 : 1 + s][which];
      files.push_back(
          std::make_unique<FileInMemory>(random.OneIn(2) ? bytes : Changed(bytes, &random)));
      const std::string name = random.OneIn(4) ? "" : Join("save ", p);
      for (Chains* chains : {&checked, &loaded}) {
        readers.push_back(MakeTableFileReader(files.back()->path(), "", name));
        (*chains)[s].push_back(readers.back().get());
      }
    }
  }
  const Content before = ExportAll(table.get(), true);
  SerialPool pool;
  int64_t whole = -1;
  Status problem;
  LoadReport report;
  const Status check = table->CheckChains(checked, share, &whole, &problem);
  const Status load =
      table->LoadChains(loaded, share, random.OneIn(2) ? 0 : table->OpenLog(), &pool, &report);
  // Rows that increments remove count towards max_rows in a check.
  const bool bounded = table->options().max_rows >= 0;
  EXPECT_TRUE(!load.ok() || bounded || (check.ok() && whole == saves));
  EXPECT_TRUE(!check.ok() || whole == saves || (!problem.ok() && whole < saves));
  ExpectWhole(table.get(), load, before);
}

}  // namespace testing
}  // namespace sparse_emb
