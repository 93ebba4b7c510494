// Rows of equal size, by number, that never move, in chunks: a table grows without a copy. Chunks
// grow with what is there, from 16 rows to about 64 KiB and from 4 MiB on by octaves, so that a
// small table is small and a large one has few: every access reads the address of its chunk, and
// those should fit the cache. Those after the first 32 KiB come from an arena in huge pages, and
// those that are larger than such a page are blocks of their own.
#ifndef TF_SPARSE_EMB_CC_LIB_ROW_CHUNKS_H_
#define TF_SPARSE_EMB_CC_LIB_ROW_CHUNKS_H_

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "cc/lib/arena_buffer.h"
#include "cc/lib/huge_pages.h"

namespace sparse_emb {

class RowChunks {
 public:
  // Without an arena all chunks are blocks of their own.
  RowChunks(int64_t row_bytes, std::shared_ptr<ChunkArena> arena)
      : row_bytes_(row_bytes), arena_(std::move(arena)) {
    while ((row_bytes << (shift_ + 1)) <= kMaxChunkBytes) ++shift_;
  }

  int64_t row_bytes() const { return row_bytes_; }
  int64_t Capacity() const { return FirstRow(chunks_.size()); }

  char* Row(uint32_t row) const {
    const int64_t chunk = ChunkOf(row);
    return data_[chunk] + (row - FirstRow(chunk)) * row_bytes_;
  }

  // Makes room for rows [0, rows). May throw std::bad_alloc; the rows are as before then.
  void Reserve(int64_t rows) {
    while (rows > FirstRow(chunks_.size())) {
      const int64_t chunk = chunks_.size();
      if (chunk == static_cast<int64_t>(data_.capacity())) data_.reserve(2 * chunk + 1);
      const int64_t bytes = (FirstRow(chunk + 1) - FirstRow(chunk)) * row_bytes_;
      const bool in_arena = FirstRow(chunk) * row_bytes_ >= kArenaBytes && bytes < kHugePageBytes;
      chunks_.emplace_back(bytes, in_arena ? arena_ : nullptr);
      data_.push_back(chunks_.back().data());
    }
  }

  // Gives back the chunks of which no row is below `rows`.
  void Trim(int64_t rows) {
    while (!chunks_.empty() && FirstRow(chunks_.size() - 1) >= rows) {
      chunks_.pop_back();
      data_.pop_back();
    }
    if (arena_ != nullptr) arena_->Trim();
  }

  // Gives back the memory of the chunk before the one that begins with this row, if one does: for
  // a pass that has copied all rows below `row`.
  void ReleaseBefore(uint32_t row) {
    const int64_t chunk = ChunkOf(row);
    if (chunk > 0 && FirstRow(chunk) == row) chunks_[chunk - 1] = ArenaBuffer();
  }

  int64_t MemoryBytes() const {
    int64_t bytes = chunks_.capacity() * (sizeof(ArenaBuffer) + sizeof(char*));
    for (const ArenaBuffer& chunk : chunks_) bytes += chunk.size();
    return bytes;
  }

 private:
  static constexpr int kFirstShift = 4;
  static constexpr int kOctaveShift = 5;
  static constexpr int64_t kMaxChunkBytes = 64 << 10;
  static constexpr int64_t kArenaBytes = 32 << 10;

  // The first 2^shift_ rows are in chunks of 16, 16, 32, 64, ... rows. Later ones are numbered as
  // floating-point numbers are: a chunk holds 2^shift_ rows, twice as many from the 64th such chunk
  // on, and so with each doubling of the rows: 32 to an octave, so that at most a 32nd is unused.
  int64_t ChunkOf(uint32_t row) const {
    const uint32_t large = row >> shift_;
    if (large != 0) {
      const int octave = std::max(31 - kOctaveShift - __builtin_clz(large), 0);
      return (large >> octave) + (octave << kOctaveShift) + shift_ - kFirstShift;
    }
    const uint32_t sixteens = row >> kFirstShift;
    return sixteens == 0 ? 0 : 32 - __builtin_clz(sixteens);
  }
  int64_t FirstRow(int64_t chunk) const {
    const int64_t large = chunk - (shift_ - kFirstShift);
    if (large > 0) {
      const int64_t octave = std::max<int64_t>((large >> kOctaveShift) - 1, 0);
      return (large - (octave << kOctaveShift)) << (shift_ + octave);
    }
    return chunk == 0 ? 0 : int64_t{1} << (chunk - 1 + kFirstShift);
  }

  int64_t row_bytes_;
  int shift_ = kFirstShift;
  std::shared_ptr<ChunkArena> arena_;
  std::vector<ArenaBuffer> chunks_;
  std::vector<char*> data_;  // of the chunks, close together
};

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_ROW_CHUNKS_H_
