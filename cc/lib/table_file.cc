#include "cc/lib/table_file.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "cc/lib/crc32c.h"
#include "cc/lib/posix_file.h"

namespace sparse_emb {
namespace {

constexpr char kMagic[8] = {'T', 'S', 'E', 'T', 'A', 'B', 'L', 'E'};
constexpr uint32_t kVersion = 2;  // the newest; 1: without a name of the save
constexpr uint32_t kByteOrder = 0x01020304;
constexpr uint32_t kOtherByteOrder = 0x04030201;

struct Head {
  char magic[8];
  uint32_t version;
  uint32_t byte_order;
  uint32_t meta_bytes;
  uint32_t crc;  // of the fields before and the description
};
static_assert(sizeof(Head) == 24);

struct BlockHead {
  char kind[4];
  uint32_t n;
  uint64_t payload_bytes;
  uint32_t payload_crc;
  uint32_t crc;  // of the fields before

  uint32_t Crc() const { return Crc32c(this, offsetof(BlockHead, crc)); }
};
static_assert(sizeof(BlockHead) == 24);

constexpr char kRows[4] = {'R', 'O', 'W', 'S'};
constexpr char kGone[4] = {'G', 'O', 'N', 'E'};
constexpr char kSave[4] = {'S', 'A', 'V', 'E'};
constexpr char kDone[4] = {'D', 'O', 'N', 'E'};

// The payload of the last block.
struct End {
  uint64_t rows = 0;
  uint64_t blocks = 0;
  uint32_t crc = 0;  // of the payload_crcs of all blocks before
  uint32_t zero = 0;

  void Add(const BlockHead& block) {
    rows += block.n;
    ++blocks;
    crc = Crc32c(&block.payload_crc, sizeof(block.payload_crc), crc);
  }
};
static_assert(sizeof(End) == 24);

template <class T>
Bytes BytesOf(const std::vector<T>& values) {
  return {values.data(), static_cast<int64_t>(values.size() * sizeof(T))};
}

uint32_t CrcOf(const Bytes& bytes, uint32_t before = 0) {
  return Crc32c(bytes.data, bytes.size, before);
}

uint32_t HeadCrc(const Head& head, const std::string& meta) {
  return Crc32c(meta.data(), meta.size(), Crc32c(&head, offsetof(Head, crc)));
}

class TableBytesWriter final : public RowSink {
 public:
  explicit TableBytesWriter(ByteSink* bytes) : bytes_(bytes) {}

  Status Begin(const TableMeta& meta) override {
    const std::string bytes = meta.Encode();
    const uint32_t version = meta.save.empty() ? 1 : kVersion;
    Head head = {{}, version, kByteOrder, static_cast<uint32_t>(bytes.size()), 0};
    std::memcpy(head.magic, kMagic, sizeof(kMagic));
    head.crc = HeadCrc(head, bytes);
    const int64_t meta_size = bytes.size(), save_size = meta.save.size();
    SPARSE_EMB_RETURN_IF_ERROR(bytes_->Write({{&head, sizeof(head)}, {bytes.data(), meta_size}}));
    if (meta.save.empty()) return {};
    const Bytes save = {meta.save.data(), save_size};
    const BlockHead block = MakeBlockHead(kSave, meta.increment, save_size, CrcOf(save));
    return bytes_->Write({{&block, sizeof(block)}, save});
  }

  Status Write(const RowChunk& chunk, const Turn& turn) override {
    const Bytes keys = BytesOf(chunk.keys), rows = BytesOf(chunk.rows);
    const Bytes removed = BytesOf(chunk.removed);
    const BlockHead there =
        MakeBlockHead(kRows, chunk.n(), keys.size + rows.size, CrcOf(rows, CrcOf(keys)));
    const BlockHead gone = MakeBlockHead(kGone, chunk.removed.size(), removed.size, CrcOf(removed));
    SPARSE_EMB_RETURN_IF_ERROR(turn.Wait());
    if (keys.size > 0) {
      end_.Add(there);
      SPARSE_EMB_RETURN_IF_ERROR(bytes_->Write({{&there, sizeof(there)}, keys, rows}));
    }
    if (removed.size == 0) return {};
    end_.Add(gone);
    return bytes_->Write({{&gone, sizeof(gone)}, removed});
  }

  Status End() override {
    const BlockHead block = MakeBlockHead(kDone, 0, sizeof(end_), Crc32c(&end_, sizeof(end_)));
    return bytes_->Write({{&block, sizeof(block)}, {&end_, sizeof(end_)}});
  }

 private:
  static BlockHead MakeBlockHead(const char (&kind)[4], int64_t n, int64_t bytes, uint32_t crc) {
    BlockHead block = {{}, static_cast<uint32_t>(n), static_cast<uint64_t>(bytes), crc, 0};
    std::memcpy(block.kind, kind, sizeof(kind));
    block.crc = block.Crc();
    return block;
  }

  ByteSink* const bytes_;
  sparse_emb::End end_;
};

class TableFileWriter final : public RowSink {
 public:
  TableFileWriter(std::string path, bool durable) : path_(std::move(path)), durable_(durable) {}
  ~TableFileWriter() override {
    if (!in_place_ && !finished_ && !file_.path().empty()) RemoveIfThere(file_.path());
  }

  Status Begin(const TableMeta& meta) override {
    in_place_ = IsSpecialFile(path_);
    const std::string unfinished = path_ + ".unfinished-";
    if (!in_place_) RemoveAbandoned(unfinished);
    SPARSE_EMB_RETURN_IF_ERROR(in_place_ ? file_.OpenToWrite(path_) : file_.Create(unfinished));
    if (!in_place_) {
      const int64_t row_bytes = sizeof(int64_t) + meta.row_floats() * sizeof(float);
      SPARSE_EMB_RETURN_IF_ERROR(file_.Reserve(meta.rows * row_bytes));
    }
    return bytes_.Begin(meta);
  }

  Status Write(const RowChunk& chunk, const Turn& turn) override {
    return bytes_.Write(chunk, turn);
  }

  Status End() override {
    SPARSE_EMB_RETURN_IF_ERROR(bytes_.End());
    if (in_place_) return file_.Close();
    if (durable_) SPARSE_EMB_RETURN_IF_ERROR(file_.Sync());
    // Not closed before: nobody may take it for abandoned.
    SPARSE_EMB_RETURN_IF_ERROR(Rename(file_.path(), path_));
    finished_ = true;
    SPARSE_EMB_RETURN_IF_ERROR(file_.Close());
    return durable_ ? SyncFolderOf(path_) : Status();
  }

 private:
  const std::string path_;
  const bool durable_;
  bool in_place_ = false;
  bool finished_ = false;
  PosixFile file_;
  TableBytesWriter bytes_{&file_};
};

class TableBytesReader final : public RowSource {
 public:
  TableBytesReader(ByteSource* bytes, std::string name, std::string save)
      : bytes_(bytes), name_(std::move(name)), save_(std::move(save)) {}

  std::string name() const override { return name_; }

  Status Begin(TableMeta* meta) override {
    Head head = {};
    int64_t got = 0;
    SPARSE_EMB_RETURN_IF_ERROR(bytes_->Read(&head, sizeof(head), &got));
    if (std::memcmp(head.magic, kMagic, sizeof(kMagic)) != 0) {
      return got == 0 ? Error(Code::kDataLoss, name_, " is empty")
                      : Error(Code::kDataLoss, name_,
                              " is no table file: it does not begin with TSETABLE");
    }
    at_ = got;
    if (got < static_cast<int64_t>(sizeof(head))) return CutOff(sizeof(head) - got);
    if (head.byte_order == kOtherByteOrder) {
      return Error(Code::kInvalidArgument, name_,
                   " was written on a machine of the other byte order");
    }
    if (head.version > kVersion && head.byte_order == kByteOrder) {
      return Error(Code::kInvalidArgument, name_, " has version ", head.version,
                   " of the table format; this build reads versions up to ", kVersion);
    }
    std::string bytes;
    if (head.byte_order != kByteOrder || head.version == 0 || head.meta_bytes > kMaxMetaBytes) {
      return Damaged("the head", 0);
    }
    SPARSE_EMB_RETURN_IF_ERROR(ReadInto(head.meta_bytes, &bytes));
    if (HeadCrc(head, bytes) != head.crc) return Damaged("the head", 0);
    SPARSE_EMB_RETURN_IF_ERROR(TableMeta::Decode(bytes, name_, &meta_));
    if (head.version > 1) SPARSE_EMB_RETURN_IF_ERROR(ReadSave());
    if (!save_.empty() && meta_.save != save_) {
      return Error(Code::kDataLoss, name_, " is a file of ",
                   meta_.save.empty() ? "no chain of saves" : "another save, '" + meta_.save + "'",
                   ", where one of save '", save_, "' must be");
    }
    SPARSE_EMB_RETURN_IF_ERROR(CheckSize());
    *meta = meta_;
    return {};
  }

  Status Read(RowChunk* chunk) override {
    const int64_t begin = at_;
    BlockHead block;
    SPARSE_EMB_RETURN_IF_ERROR(Read(&block, sizeof(block)));
    if (block.Crc() != block.crc) return Damaged("the head of a block", begin);
    if (std::memcmp(block.kind, kDone, sizeof(kDone)) == 0) {
      *chunk = {};
      return ReadEnd(block, begin);
    }
    if (std::memcmp(block.kind, kGone, sizeof(kGone)) == 0) {
      chunk->keys.clear();
      chunk->rows.clear();
      return ReadRemoved(block, begin, &chunk->removed);
    }
    // By division, because n rows may be more bytes than a uint64 counts.
    if (std::memcmp(block.kind, kRows, sizeof(kRows)) != 0 || block.n == 0 ||
        block.payload_bytes / RowBytes() != block.n || block.payload_bytes % RowBytes() != 0) {
      return Damaged("the head of a block", begin);
    }
    chunk->removed.clear();
    SPARSE_EMB_RETURN_IF_ERROR(ReadInto(block.n, &chunk->keys));
    SPARSE_EMB_RETURN_IF_ERROR(ReadInto(block.n * meta_.row_floats(), &chunk->rows));
    const uint32_t crc = CrcOf(BytesOf(chunk->rows), CrcOf(BytesOf(chunk->keys)));
    if (crc != block.payload_crc) return Damaged("a block of rows", begin);
    end_.Add(block);
    return {};
  }

 private:
  static constexpr uint32_t kMaxMetaBytes = 256 << 20;

  uint64_t RowBytes() const { return sizeof(int64_t) + meta_.row_floats() * sizeof(float); }

  // An error if a regular file is too short for its rows: nobody needs to make room for them then.
  Status CheckSize() const {
    const int64_t size = bytes_->Size();
    if (size < at_ || static_cast<uint64_t>(meta_.rows) <= (size - at_) / RowBytes()) return {};
    return Error(Code::kDataLoss, name_, " is cut off: it ends after ", size,
                 " bytes, too few for its ", meta_.rows, " rows of ", RowBytes(), " bytes");
  }

  Status ReadSave() {
    const int64_t begin = at_;
    BlockHead block;
    SPARSE_EMB_RETURN_IF_ERROR(Read(&block, sizeof(block)));
    if (block.Crc() != block.crc || std::memcmp(block.kind, kSave, sizeof(kSave)) != 0 ||
        block.n > 1 || block.payload_bytes == 0 || block.payload_bytes > kMaxMetaBytes) {
      return Damaged("the name of the save", begin);
    }
    meta_.increment = block.n == 1;
    SPARSE_EMB_RETURN_IF_ERROR(ReadInto(block.payload_bytes, &meta_.save));
    return Crc32c(meta_.save.data(), meta_.save.size()) == block.payload_crc
               ? Status()
               : Damaged("the name of the save", begin);
  }

  Status ReadRemoved(const BlockHead& block, int64_t begin, std::vector<int64_t>* keys) {
    if (!meta_.increment || block.n == 0 || block.payload_bytes != block.n * sizeof(int64_t)) {
      return Damaged("the head of a block", begin);
    }
    SPARSE_EMB_RETURN_IF_ERROR(ReadInto(block.n, keys));
    if (CrcOf(BytesOf(*keys)) != block.payload_crc) {
      return Damaged("a block of removed keys", begin);
    }
    removed_ += block.n;
    end_.Add(block);
    return {};
  }

  Status ReadEnd(const BlockHead& block, int64_t begin) {
    sparse_emb::End end;
    if (block.payload_bytes != sizeof(end)) return Damaged("the end", begin);
    SPARSE_EMB_RETURN_IF_ERROR(Read(&end, sizeof(end)));
    if (Crc32c(&end, sizeof(end)) != block.payload_crc ||
        std::memcmp(&end, &end_, sizeof(end)) != 0) {
      return Damaged("the end", begin);
    }
    if (end.rows - removed_ != static_cast<uint64_t>(meta_.rows)) {
      return Error(Code::kDataLoss, name_, " is damaged: it holds ", end.rows - removed_,
                   " rows where ", meta_.rows, " were announced");
    }
    char more;
    int64_t got = 0;
    SPARSE_EMB_RETURN_IF_ERROR(bytes_->Read(&more, 1, &got));
    if (got == 0) return {};
    return Error(Code::kDataLoss, name_, " is damaged: more bytes follow its end at byte ", at_);
  }

  Status Read(void* data, int64_t bytes) {
    int64_t got = 0;
    SPARSE_EMB_RETURN_IF_ERROR(bytes_->Read(data, bytes, &got));
    at_ += got;
    return got == bytes ? Status() : CutOff(bytes - got);
  }

  // Reads `count` elements, making room for them as they come.
  template <class Values>
  Status ReadInto(uint64_t count, Values* out) {
    constexpr uint64_t kElement = sizeof(*out->data());
    for (uint64_t size = 0; size < count;) {
      const uint64_t part = std::min(count - size, kChunkBytes / kElement);
      if (out->size() < size + part) out->resize(size + part);
      SPARSE_EMB_RETURN_IF_ERROR(Read(out->data() + size, part * kElement));
      size += part;
    }
    out->resize(count);
    return {};
  }

  Status CutOff(int64_t missing) const {
    return Error(Code::kDataLoss, name_, " is cut off: it ends after ", at_, " bytes, at least ",
                 missing, " more must follow");
  }
  Status Damaged(const char* what, int64_t at) const {
    return Error(Code::kDataLoss, name_, " is damaged: the checksum of ", what, " at byte ", at,
                 " does not match");
  }

  ByteSource* const bytes_;
  const std::string name_;
  const std::string save_;  // that it must be of; empty: any
  TableMeta meta_;
  int64_t at_ = 0;
  uint64_t removed_ = 0;
  sparse_emb::End end_;  // what it must be
};

class TableFileReader final : public RowSource {
 public:
  TableFileReader(std::string path, std::string name, std::string save)
      : path_(std::move(path)),
        bytes_(&file_, name.empty() ? "'" + path_ + "'" : std::move(name), std::move(save)) {}

  std::string name() const override { return bytes_.name(); }

  Status Begin(TableMeta* meta) override {
    SPARSE_EMB_RETURN_IF_ERROR(file_.OpenToRead(path_));
    return bytes_.Begin(meta);
  }

  Status Read(RowChunk* chunk) override {
    SPARSE_EMB_RETURN_IF_ERROR(bytes_.Read(chunk));
    // Of many files that are read one after the other, few are open.
    return chunk->empty() ? file_.Close() : Status();
  }

 private:
  const std::string path_;
  PosixFile file_;
  TableBytesReader bytes_;
};

}  // namespace

std::unique_ptr<RowSink> MakeTableFileWriter(std::string path, bool durable) {
  return std::make_unique<TableFileWriter>(std::move(path), durable);
}

std::unique_ptr<RowSink> MakeTableBytesWriter(ByteSink* bytes) {
  return std::make_unique<TableBytesWriter>(bytes);
}

std::unique_ptr<RowSource> MakeTableFileReader(std::string path, std::string name,
                                               std::string save) {
  return std::make_unique<TableFileReader>(std::move(path), std::move(name), std::move(save));
}

std::unique_ptr<RowSource> MakeTableBytesReader(ByteSource* bytes, std::string name) {
  return std::make_unique<TableBytesReader>(bytes, std::move(name), "");
}

}  // namespace sparse_emb
