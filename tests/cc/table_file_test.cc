// The file of a table: what is refused, and how it is written.
#include "cc/lib/table_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "cc/lib/posix_file.h"
#include "tests/cc/saved_tables.h"

namespace sparse_emb {
namespace testing {
namespace {

// What cannot be loaded, and leaves the table as it was.

void ExpectRefused(const std::string& path, Code code, const std::string& part,
                   const TableOptions* options = nullptr) {
  const auto table = options == nullptr ? FilledTable("slab", 20) : NewTable(*options);
  const Content before = ExportAll(table.get(), true);
  const int64_t seed = table->options().initial_row.seed();
  EXPECT_ERROR(Load(table.get(), path), code, part);
  ExpectSameContent(ExportAll(table.get(), true), before);
  EXPECT_EQ(table->options().initial_row.seed(), seed);
}

TEST(EveryFlippedByteIsFoundOut) {
  const Folder folder;
  const auto saved = FilledTable("slab", 5);
  EXPECT_OK(Save(saved.get(), folder / "table"));
  const std::string whole = ReadFile(folder / "table");
  const auto table = FilledTable("slab", 20);
  const Content before = ExportAll(table.get(), true);
  for (size_t at = 0; at < whole.size(); ++at) {
    SCOPED_TRACE("byte ", at);
    std::string bytes = whole;
    bytes[at] ^= 1 << (at % 8);
    WriteFile(folder / "flipped", bytes);
    const Status status = Load(table.get(), folder / "flipped");
    EXPECT_TRUE(!status.ok());
    EXPECT_TRUE(status.message.find("'" + (folder / "flipped") + "'") != std::string::npos);
  }
  ExpectSameContent(ExportAll(table.get(), true), before);
}

TEST(EveryCutIsFoundOut) {
  const Folder folder;
  const auto saved = FilledTable("slab", 5);
  EXPECT_OK(Save(saved.get(), folder / "table"));
  const std::string whole = ReadFile(folder / "table");
  for (size_t size = 1; size < whole.size(); ++size) {
    SCOPED_TRACE(size, " bytes");
    WriteFile(folder / "cut", whole.substr(0, size));
    ExpectRefused(folder / "cut", Code::kDataLoss, size < 8 ? "is no table file" : "is cut off");
  }
  WriteFile(folder / "cut", "");
  ExpectRefused(folder / "cut", Code::kDataLoss, "is empty");
  WriteFile(folder / "cut", whole + "x");
  ExpectRefused(folder / "cut", Code::kDataLoss, "more bytes follow its end");
}

TEST(ABlockLeftOutTwiceOrInAnothersPlaceIsFoundOut) {
  const Folder folder;
  const auto saved = FilledTable("slab", 3000, 1000);
  EXPECT_OK(Save(saved.get(), folder / "table"));
  const std::string whole = ReadFile(folder / "table");
  const size_t first = whole.find("ROWS");
  uint64_t payload;
  std::memcpy(&payload, &whole[first + 8], sizeof(payload));
  const std::string block = whole.substr(first, 24 + payload);
  std::string bytes = whole;
  EXPECT_EQ(bytes.substr(first + block.size(), 4), std::string("ROWS"));
  WriteFile(folder / "less", bytes.erase(first, block.size()));
  TableOptions options = saved->options();
  ExpectRefused(folder / "less", Code::kDataLoss, "too few for its 3000 rows", &options);
  const size_t second = first + block.size();
  std::memcpy(&payload, &whole[second + 8], sizeof(payload));
  bytes = whole.substr(0, first) + whole.substr(second, 24 + payload) + block +
          whole.substr(second + 24 + payload);
  WriteFile(folder / "swapped", bytes);
  ExpectRefused(folder / "swapped", Code::kDataLoss, "the checksum of the end", &options);
  bytes = whole;
  WriteFile(folder / "more", bytes.insert(first, block));
  ExpectRefused(folder / "more", Code::kDataLoss, " twice", &options);
}

TEST(OtherFilesAreRefusedByName) {
  const Folder folder;
  WriteFile(folder / "text", "This is something else.");
  ExpectRefused(folder / "text", Code::kDataLoss, "is no table file");
  ExpectRefused(folder / "absent", Code::kNotFound, "cannot open '" + (folder / "absent") + "'");
  const auto saved = FilledTable("slab", 5);
  EXPECT_OK(Save(saved.get(), folder / "table"));
  std::string bytes = ReadFile(folder / "table");
  bytes[8] = 3;
  WriteFile(folder / "newer", bytes);
  ExpectRefused(folder / "newer", Code::kInvalidArgument,
                "has version 3 of the table format; this build reads versions up to 2");
  bytes = ReadFile(folder / "table");
  std::reverse(&bytes[8], &bytes[12]);
  std::reverse(&bytes[12], &bytes[16]);
  WriteFile(folder / "other_order", bytes);
  ExpectRefused(folder / "other_order", Code::kInvalidArgument, "the other byte order");
}

TEST(TablesThatDoNotFitAreRefusedByName) {
  const Folder folder;
  const auto wide = FilledTable("slab", 5, kDim + 1);
  EXPECT_OK(Save(wide.get(), folder / "wide"));
  ExpectRefused(folder / "wide", Code::kInvalidArgument,
                "table 'item' has rows of width 3, but '" + (folder / "wide") +
                    "' holds rows of width 4 (of table 'item')");
  const auto saved = FilledTable("slab", 1500);
  EXPECT_OK(Save(saved.get(), folder / "table"));
  for (const std::string storage : kAllStorages) {
    SCOPED_TRACE(storage);
    const TableOptions narrow = UniformTable(storage, kDim, 1000);
    ExpectRefused(folder / "table", Code::kInvalidArgument, "keys must be in [0, 1000), got",
                  &narrow);
    ExpectRefused(folder / "table", Code::kInvalidArgument, "(in '" + (folder / "table") + "')",
                  &narrow);
  }
  TableOptions small = UniformTable("slab", kDim);
  small.max_rows = 1499;
  ExpectRefused(folder / "table", Code::kResourceExhausted,
                "max_rows = 1499 and cannot take the 1500 rows of", &small);
}

// Writing.

TEST(AFileIsReplacedAtOnceAndNothingElseIsLeft) {
  const Folder folder;
  const auto first = FilledTable("slab", 10), second = FilledTable("slab", 20);
  EXPECT_OK(Save(first.get(), folder / "table"));
  EXPECT_OK(Save(second.get(), folder / "table"));
  EXPECT_EQ(Join(folder.Files().size(), folder.Files()[0]), std::string("1table"));
  const auto loaded = NewTable(first->options());
  EXPECT_OK(Load(loaded.get(), folder / "table"));
  EXPECT_EQ(loaded->Size(), int64_t{20});
}

TEST(WhatASaveThatWasKilledHasLeftGoesWithTheNext) {
  const Folder folder;
  const auto table = FilledTable("slab", 10);
  // The first two are of processes that are gone, the third of one that writes on.
  const std::string names[] = {"table.unfinished-1-0",  "table.unfinished-23-45",
                               "table.unfinished-7-0",  "table.unfinished-1-",
                               "table.unfinished-1-0x", "mytable.unfinished-1-0"};
  for (const std::string& name : names) WriteFile(folder / name, "TSE");
  const int writing = open((folder / names[2]).c_str(), O_WRONLY);
  EXPECT_EQ(flock(writing, LOCK_EX), 0);
  EXPECT_OK(Save(table.get(), folder / "table"));
  const auto files = folder.Files();
  const auto is_there = [&](const std::string& name) {
    return std::find(files.begin(), files.end(), name) != files.end();
  };
  for (size_t i = 0; i < 6; ++i) {
    SCOPED_TRACE(names[i]);
    EXPECT_EQ(is_there(names[i]), i >= 2);
  }
  EXPECT_TRUE(is_there("table"));
  close(writing);
}

TEST(AFileThatIsBeingWrittenIsLocked) {
  const Folder folder;
  PosixFile file;
  EXPECT_OK(file.Create(folder / "file-"));
  RemoveAbandoned(folder / "file-");
  EXPECT_EQ(folder.Files().size(), size_t{1});
  EXPECT_OK(file.Close());
  RemoveAbandoned(folder / "file-");
  EXPECT_EQ(folder.Files().size(), size_t{0});
}

TEST(AFullDiskLeavesTheOldFileAndNoOther) {
  const Folder folder;
  const auto small = FilledTable("slab", 10), large = FilledTable("slab", 3000);
  EXPECT_OK(Save(small.get(), folder / "table"));
  const std::string before = ReadFile(folder / "table");
  rlimit old_limit;
  getrlimit(RLIMIT_FSIZE, &old_limit);
  for (const rlim_t bytes : {0, 10, 100, 20000}) {
    SCOPED_TRACE("a limit of ", bytes, " bytes");
    const rlimit limit = {bytes, old_limit.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
    const Status status = Save(large.get(), folder / "table");
    setrlimit(RLIMIT_FSIZE, &old_limit);
    EXPECT_ERROR(status, Code::kResourceExhausted, "File too large");
    EXPECT_TRUE(status.message.find(folder / "table") != std::string::npos);
    EXPECT_EQ(folder.Files().size(), size_t{1});
    EXPECT_TRUE(ReadFile(folder / "table") == before);
  }
  // /dev/full is a disk without room, and no regular file.
  EXPECT_ERROR(Save(large.get(), "/dev/full"), Code::kResourceExhausted,
               "cannot write to '/dev/full': No space left on device");
}

TEST(AFolderThatIsNotThereIsAnErrorThatNamesTheFile) {
  const Folder folder;
  const auto table = FilledTable("slab", 10);
  EXPECT_ERROR(Save(table.get(), folder / "none/table"), Code::kNotFound, folder / "none/table");
  WriteFile(folder / "file", "");
  EXPECT_ERROR(Save(table.get(), folder / "file/table"), Code::kNotFound, "Not a directory");
}

TEST(ATableGoesThroughAPipe) {
  const Folder folder;
  const auto saved = FilledTable("slab", 3000, 100);
  const auto loaded = NewTable(saved->options());
  EXPECT_EQ(mkfifo((folder / "pipe").c_str(), 0600), 0);
  std::thread writer([&] { EXPECT_OK(Save(saved.get(), folder / "pipe")); });
  EXPECT_OK(Load(loaded.get(), folder / "pipe"));
  writer.join();
  ExpectSameContent(ExportAll(loaded.get(), true), ExportAll(saved.get(), true));
}

TEST(APipeThatNobodyReadsOnIsAnErrorAndNoSignal) {
  const Folder folder;
  const auto saved = FilledTable("slab", 3000, 100);
  EXPECT_EQ(mkfifo((folder / "pipe").c_str(), 0600), 0);
  std::thread reader([&] { std::ifstream(folder / "pipe").get(); });
  EXPECT_ERROR(Save(saved.get(), folder / "pipe"), Code::kUnavailable, "Broken pipe");
  reader.join();
}

}  // namespace
}  // namespace testing
}  // namespace sparse_emb
