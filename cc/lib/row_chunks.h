// Rows of equal size, by number, that never move: chunks that grow from 16 rows to about 64 KiB
// and then stay at that size, so that a small table is small and a large one grows without a copy.
#ifndef TF_SPARSE_EMB_CC_LIB_ROW_CHUNKS_H_
#define TF_SPARSE_EMB_CC_LIB_ROW_CHUNKS_H_

#include <cstdint>
#include <vector>

#include "cc/lib/aligned_buffer.h"

namespace sparse_emb {

class RowChunks {
 public:
  explicit RowChunks(int64_t row_bytes) : row_bytes_(row_bytes) {
    while ((row_bytes << (shift_ + 1)) <= kMaxChunkBytes) ++shift_;
  }

  int64_t row_bytes() const { return row_bytes_; }

  char* Row(uint32_t row) const {
    const int64_t chunk = ChunkOf(row);
    return chunks_[chunk].data() + (row - FirstRow(chunk)) * row_bytes_;
  }

  // Makes room for rows [0, rows). May throw std::bad_alloc; the rows are as before then.
  void Reserve(int64_t rows) {
    while (rows > FirstRow(chunks_.size())) {
      const int64_t chunk = chunks_.size();
      chunks_.emplace_back((FirstRow(chunk + 1) - FirstRow(chunk)) * row_bytes_);
    }
  }

  // Gives back the memory of the chunk before the one that begins with this row, if one does: for
  // a pass that has copied all rows below `row`.
  void ReleaseBefore(uint32_t row) {
    const int64_t chunk = ChunkOf(row);
    if (chunk > 0 && FirstRow(chunk) == row) chunks_[chunk - 1] = AlignedBuffer();
  }

  int64_t MemoryBytes() const {
    int64_t bytes = chunks_.capacity() * sizeof(AlignedBuffer);
    for (const AlignedBuffer& chunk : chunks_) bytes += chunk.size();
    return bytes;
  }

 private:
  static constexpr int kFirstShift = 4;
  static constexpr int64_t kMaxChunkBytes = 64 << 10;

  // Chunks 0 .. k hold 16, 16, 32, 64, ... rows, 2^shift_ in all; each later one holds 2^shift_.
  int64_t ChunkOf(uint32_t row) const {
    const uint32_t large = row >> shift_;
    if (large != 0) return large + shift_ - kFirstShift;
    const uint32_t sixteens = row >> kFirstShift;
    return sixteens == 0 ? 0 : 32 - __builtin_clz(sixteens);
  }
  int64_t FirstRow(int64_t chunk) const {
    const int64_t large = chunk - (shift_ - kFirstShift);
    if (large > 0) return large << shift_;
    return chunk == 0 ? 0 : int64_t{1} << (chunk - 1 + kFirstShift);
  }

  int64_t row_bytes_;
  int shift_ = kFirstShift;
  std::vector<AlignedBuffer> chunks_;
};

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_ROW_CHUNKS_H_
