// Files of tables whose checksums agree with what they say, and which say what cannot be: they are
// refused, without the memory that they ask for.
#include <limits>
#include <string>
#include <vector>

#include "cc/lib/table_file.h"
#include "tests/cc/memory_limit.h"
#include "tests/cc/saved_tables.h"
#include "tests/cc/table_file_bytes.h"

namespace sparse_emb {
namespace testing {
namespace {

constexpr int64_t kMost = std::numeric_limits<int64_t>::max();

// The file of a table of 5 rows, of what `path` holds then.
std::string FileOfFiveRows(const std::string& path) {
  const auto table = FilledTable("slab", 5);
  EXPECT_OK(Save(table.get(), path));
  return ReadFile(path);
}

// The same file with another description.
std::string Described(const std::string& bytes, const TableMeta& meta) {
  const std::string description = meta.Encode();
  std::string changed = bytes.substr(0, kHeadBytes) + description +
                        bytes.substr(kHeadBytes + Get<uint32_t>(bytes, 16));
  Put(static_cast<uint32_t>(description.size()), 16, &changed);
  Seal(&changed);
  return changed;
}

TableMeta MetaOf(const std::string& path) {
  TableMeta meta;
  EXPECT_OK(MakeTableFileReader(path)->Begin(&meta));
  return meta;
}

// Loads it while the process may take 100 MB more.
void ExpectRefusedInLittleMemory(const std::string& path, const std::string& part) {
  const auto table = FilledTable("slab", 20);
  const Content before = ExportAll(table.get(), true);
  Status status;
  if (kSanitized) {  // which reserve addresses themselves
    status = Load(table.get(), path);
  } else {
    const MemoryLimit limit(100 << 20);
    SerialPool pool;
    LoadReport report;
    status = table->Load(MakeTableFileReader(path).get(), &pool, &report);
  }
  EXPECT_ERROR(status, Code::kDataLoss, part);
  ExpectSameContent(ExportAll(table.get(), true), before);
}

TEST(ASealedFileIsReadAsItWas) {
  const Folder folder;
  const std::string bytes = FileOfFiveRows(folder / "table");
  std::string sealed = bytes;
  Seal(&sealed);
  EXPECT_TRUE(sealed == bytes);
}

TEST(ABlockOfMoreRowsThanTheFileHasIsCutOff) {
  const Folder folder;
  const std::string bytes = FileOfFiveRows(folder / "table");
  const uint64_t row_bytes = sizeof(int64_t) + MetaOf(folder / "table").row_floats() * 4;
  const size_t block = bytes.find("ROWS");
  for (const uint32_t n : {7u, 1u << 20, 1u << 31}) {
    SCOPED_TRACE(n, " rows");
    std::string changed = bytes;
    Put(n, block + 4, &changed);
    Put(n * row_bytes, block + 8, &changed);
    Seal(&changed);
    WriteFile(folder / "forged", changed);
    ExpectRefusedInLittleMemory(folder / "forged", "is cut off");
  }
}

// With counts of 2^32 - 16 a row has 2^33 floats or so: 2^31 rows are 0 bytes, modulo 2^64.
TEST(ABlockOfMoreBytesThanAUint64CountsIsDamaged) {
  const Folder folder;
  const std::string bytes = FileOfFiveRows(folder / "table");
  TableMeta meta = MetaOf(folder / "table");
  meta.num_counts = (int64_t{1} << 32) - 16;
  meta.rows = 0;
  std::string changed = Described(bytes, meta);
  const size_t block = changed.find("ROWS");
  Put(1u << 31, block + 4, &changed);
  const uint64_t row_bytes = sizeof(int64_t) + meta.row_floats() * 4;
  Put((row_bytes << 31), block + 8, &changed);
  Seal(&changed);
  WriteFile(folder / "forged", changed);
  ExpectRefusedInLittleMemory(folder / "forged", "the head of a block");
}

TEST(AFileThatIsTooShortForItsRowsIsCutOff) {
  const Folder folder;
  const std::string bytes = FileOfFiveRows(folder / "table");
  TableMeta meta = MetaOf(folder / "table");
  for (const int64_t rows : {int64_t{1000}, int64_t{1} << 30, (int64_t{1} << 48) - 1}) {
    SCOPED_TRACE(rows, " rows");
    meta.rows = rows;
    WriteFile(folder / "forged", Described(bytes, meta));
    ExpectRefusedInLittleMemory(folder / "forged", Join("bytes, too few for its ", rows, " rows"));
  }
}

TEST(ADescriptionThatCannotBeIsRefused) {
  TableMeta meta;
  meta.dim = 3;
  TableMeta other = meta;
  other.has_padding = true;
  const std::string bytes = meta.Encode(), with_padding = other.Encode();
  const auto expect_refused = [](const std::string& changed) {
    TableMeta out;
    EXPECT_ERROR(TableMeta::Decode(changed, "'file'", &out), Code::kDataLoss,
                 "'file': the description of the table cannot be read");
  };
  TableMeta out;
  EXPECT_OK(TableMeta::Decode(with_padding, "'file'", &out));
  EXPECT_TRUE(out.has_padding);
  // A bool that is neither true nor false.
  std::string changed = bytes;
  size_t at = 0;
  while (bytes[at] == with_padding[at]) ++at;
  changed[at] = 2;
  expect_refused(changed);
  for (int64_t TableMeta::* field :
       {&TableMeta::dim, &TableMeta::num_counts, &TableMeta::updates, &TableMeta::rows}) {
    for (const int64_t value : {int64_t{-1}, kMost}) {
      SCOPED_TRACE("value ", value);
      TableMeta wrong = meta;
      wrong.*field = value;
      expect_refused(wrong.Encode());
    }
  }
}

// Counts that say they were last counted before or after all time.
TEST(CountsOfAnyStepDecayByTheFormula) {
  const KeyCounts counts{1, 0.5};
  float at[4];
  const double eight = 8.0;
  double got;
  counts.Set(at, std::numeric_limits<int64_t>::min(), &eight);
  counts.Get(at, 3, &got);
  EXPECT_EQ(got, 0.0);
  counts.Set(at, 1, &eight);
  counts.Get(at, 3, &got);
  EXPECT_EQ(got, 2.0);
  counts.Set(at, kMost, &eight);
  counts.Get(at, 3, &got);
  EXPECT_EQ(got, std::numeric_limits<double>::infinity());
}

}  // namespace
}  // namespace testing
}  // namespace sparse_emb
