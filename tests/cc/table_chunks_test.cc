// Tables of several chunks, which two threads write and one reads ahead.
#include <string>

#include "cc/lib/table_file.h"
#include "tests/cc/saved_tables.h"
#include "tests/cc/table_content.h"

namespace sparse_emb {
namespace testing {
namespace {

constexpr int64_t kWide = 1200, kRows = 4000;  // 19 MB: five chunks

// Fails at a chunk.
class FullSink final : public RowSink {
 public:
  explicit FullSink(int64_t chunks) : left_(chunks) {}
  Status Begin(const TableMeta&) override { return {}; }
  Status Write(const RowChunk&, const Turn& turn) override {
    SPARSE_EMB_RETURN_IF_ERROR(turn.Wait());
    return left_-- > 0 ? Status() : Error(Code::kResourceExhausted, "full");
  }
  Status End() override { return Error(Code::kDataLoss, "an end after an error"); }

 private:
  int64_t left_;
};

TEST(ATableOfManyChunksIsLoadedAsItWasAndSavedAsTheSameFile) {
  Folder folder;
  const auto table = FilledTable("slab", kRows, kWide);
  EXPECT_OK(Save(table.get(), folder / "a"));
  EXPECT_TRUE(ReadFile(folder / "a").size() > size_t{4} * kChunkBytes);
  const auto loaded = FilledTable("slab", 1, kWide);
  EXPECT_OK(Load(loaded.get(), folder / "a"));
  ExpectSameContent(ExportAll(loaded.get(), true), ExportAll(table.get(), true));
  EXPECT_OK(Save(loaded.get(), folder / "b"));
  EXPECT_TRUE(ReadFile(folder / "a") == ReadFile(folder / "b"));
}

TEST(DamageInAnyChunkIsFoundAndTheTableIsAsBefore) {
  Folder folder;
  EXPECT_OK(Save(FilledTable("slab", kRows, kWide).get(), folder / "a"));
  const std::string whole = ReadFile(folder / "a");
  const auto table = FilledTable("slab", 100, kWide);
  const Content before = ExportAll(table.get(), true);
  for (size_t at = 1 << 20; at < whole.size(); at += 3 << 20) {
    std::string flipped = whole;
    flipped[at] ^= 4;
    WriteFile(folder / "b", flipped);
    EXPECT_EQ(Load(table.get(), folder / "b").code, Code::kDataLoss);
    WriteFile(folder / "b", whole.substr(0, at));
    EXPECT_EQ(Load(table.get(), folder / "b").code, Code::kDataLoss);
    ExpectSameContent(ExportAll(table.get(), true), before);
  }
}

TEST(AnErrorOfAnyChunkEndsTheSave) {
  const auto table = FilledTable("slab", kRows, kWide);
  SerialPool pool;
  for (int64_t chunks = 0; chunks < 5; ++chunks) {
    FullSink sink(chunks);
    const Status status = table->Save(true, &sink, &pool);
    EXPECT_EQ(status.code, Code::kResourceExhausted);
    EXPECT_EQ(status.message, "full");
  }
}

}  // namespace
}  // namespace testing
}  // namespace sparse_emb
