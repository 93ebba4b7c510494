// Bytes that go from one thread to another in blocks, and tables that do.
#include "cc/lib/block_stream.h"

#include <algorithm>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "cc/lib/table_file.h"
#include "tests/cc/saved_tables.h"
#include "tests/cc/table_content.h"
#include "tests/cc/testing.h"

namespace sparse_emb {
namespace testing {
namespace {

Block BlockOf(const std::string& bytes) {
  const auto kept = std::make_shared<std::string>(bytes);
  return {{kept, kept->data()}, static_cast<int64_t>(kept->size())};
}

std::string StringOf(const Block& block) {
  return {block.data.get(), static_cast<size_t>(block.size)};
}

// All blocks to the end.
std::vector<std::string> TakeAll(BlockQueue* queue) {
  std::vector<std::string> taken;
  for (Block block;;) {
    EXPECT_TRUE(queue->Take(&block));
    if (block.size == 0) return taken;
    taken.push_back(StringOf(block));
  }
}

TEST(WhatIsWrittenInPiecesIsTakenInBlocksOfOneSize) {
  BlockQueue queue;
  std::thread writer([&] {
    BlockSink sink(&queue, 4);
    EXPECT_OK(sink.Write({{"ab", 2}, {"", 0}, {"cdefghijk", 9}}));
    EXPECT_OK(sink.Write({{"l", 1}, {"m", 1}}));
    EXPECT_OK(sink.End());
  });
  const std::vector<std::string> want = {"abcd", "efgh", "ijkl", "m"};
  EXPECT_TRUE(TakeAll(&queue) == want);
  writer.join();
}

TEST(WhatIsGivenInBlocksOfAnySizeIsReadInPieces) {
  BlockQueue queue;
  std::thread giver([&] {
    for (const char* bytes : {"abc", "", "defgh", "i"}) EXPECT_TRUE(queue.Give(BlockOf(bytes)));
    queue.End();
  });
  BlockSource source(&queue, "blocks");
  std::string read(20, ' ');
  int64_t got = 0;
  EXPECT_OK(source.Read(read.data(), 4, &got));
  EXPECT_EQ(read.substr(0, got), "abcd");
  EXPECT_OK(source.Read(read.data(), 20, &got));
  EXPECT_EQ(read.substr(0, got), "efghi");
  EXPECT_OK(source.Read(read.data(), 20, &got));
  EXPECT_EQ(got, 0);
  giver.join();
}

TEST(AWriterWhoseTakerHasStoppedHasAnErrorAndDoesNotWait) {
  BlockQueue queue;
  std::thread taker([&] {
    Block block;
    EXPECT_TRUE(queue.Take(&block));
    queue.Stop();
  });
  BlockSink sink(&queue, 2);
  Status status;
  while (status.ok()) status = sink.Write({{"abcdefgh", 8}});
  EXPECT_ERROR(status, Code::kUnavailable, "nobody takes the blocks");
  EXPECT_TRUE(!queue.Give(BlockOf("a")));
  taker.join();
}

TEST(AReaderWhoseGiverHasStoppedHasAnErrorAndDoesNotWait) {
  BlockQueue queue;
  std::thread giver([&] {
    EXPECT_TRUE(queue.Give(BlockOf("ab")));
    queue.Stop();
  });
  BlockSource source(&queue, "'file'");
  char read[4];
  int64_t got;
  EXPECT_ERROR(source.Read(read, 4, &got), Code::kUnavailable, "'file' was not read to its end");
  giver.join();
}

TEST(WhatWasGivenToTheEndIsThereAlthoughTheGiverHasStopped) {
  BlockQueue queue;
  EXPECT_TRUE(queue.Give(BlockOf("ab")));
  queue.End();
  queue.Stop();
  const std::vector<std::string> want = {"ab"};
  EXPECT_TRUE(TakeAll(&queue) == want);
}

TEST(ABlockStaysWhatItIsWhileItIsHeldAndItsMemoryIsUsedAgainAfterwards) {
  BlockQueue queue;
  std::thread writer([&] {
    BlockSink sink(&queue, 3);
    for (char c = 'a'; c <= 'z'; ++c) {
      const std::string bytes(3, c);
      EXPECT_OK(sink.Write({{bytes.data(), 3}}));
    }
    EXPECT_OK(sink.End());
  });
  Block first, block;
  EXPECT_TRUE(queue.Take(&first));
  std::vector<const char*> addresses;
  for (char c = 'b'; c <= 'z'; ++c) {
    EXPECT_TRUE(queue.Take(&block));
    EXPECT_EQ(StringOf(block), std::string(3, c));
    EXPECT_TRUE(block.data != first.data);
    addresses.push_back(block.data.get());
  }
  writer.join();
  EXPECT_EQ(StringOf(first), "aaa");
  std::sort(addresses.begin(), addresses.end());
  EXPECT_TRUE(std::unique(addresses.begin(), addresses.end()) - addresses.begin() <= 4);
}

TEST(BlocksMayOutliveTheirQueueAndTheirWriter) {
  Block block;
  {
    BlockQueue queue;
    BlockSink sink(&queue, 8);
    EXPECT_OK(sink.Write({{"abc", 3}}));
    EXPECT_OK(sink.End());
    EXPECT_TRUE(queue.Take(&block));
  }
  EXPECT_EQ(StringOf(block), "abc");
}

TEST(ATableGoesThroughBlocksAsThroughItsFile) {
  const Folder folder;
  const auto saved = FilledTable("slab", 3000, 100);
  EXPECT_OK(Save(saved.get(), folder / "table"));
  BlockQueue queue, again;
  std::thread writer([&] {
    BlockSink sink(&queue, 1000);
    StdThreadPool pool(2);
    EXPECT_OK(saved->Save(true, MakeTableBytesWriter(&sink).get(), &pool));
    EXPECT_OK(sink.End());
  });
  std::string bytes;
  for (const std::string& block : TakeAll(&queue)) bytes += block;
  writer.join();
  EXPECT_TRUE(bytes == ReadFile(folder / "table"));

  const auto loaded = NewTable(saved->options());
  std::thread giver([&] {
    for (size_t i = 0; i < bytes.size(); i += 777) {
      EXPECT_TRUE(again.Give(BlockOf(bytes.substr(i, 777))));
    }
    again.End();
  });
  BlockSource source(&again, "blocks");
  StdThreadPool pool(2);
  LoadReport report;
  EXPECT_OK(loaded->Load(MakeTableBytesReader(&source, "blocks").get(), &pool, &report));
  giver.join();
  ExpectSameContent(ExportAll(loaded.get(), true), ExportAll(saved.get(), true));
}

}  // namespace
}  // namespace testing
}  // namespace sparse_emb
