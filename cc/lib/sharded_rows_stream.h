// ShardedRows to a RowSink and from a RowSource (table_stream.h).
#ifndef TF_SPARSE_EMB_CC_LIB_SHARDED_ROWS_STREAM_H_
#define TF_SPARSE_EMB_CC_LIB_SHARDED_ROWS_STREAM_H_

#include <algorithm>
#include <array>
#include <cstdint>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "cc/lib/sharded_rows.h"
#include "cc/lib/table.h"
#include "cc/lib/table_stream.h"

namespace sparse_emb {

// Writes all rows, the first meta.row_floats() floats of each. A chunk takes some of every shard,
// so that a load can fill all shards at once; within a shard rows come in the storage's order, and
// a table that is loaded from a table of its own storage has that order again.
template <class Store>
Status SaveRows(const ShardedRows<Store>& rows, const TableMeta& meta, RowSink* sink,
                WorkerPool* pool) {
  SPARSE_EMB_RETURN_IF_ERROR(sink->Begin(meta));
  const int64_t width = meta.row_floats();
  const int64_t row_bytes = sizeof(int64_t) + width * sizeof(float);
  const int64_t chunk_rows = std::max<int64_t>(kChunkBytes / row_bytes, 1);
  const int64_t shard_rows = std::max<int64_t>(chunk_rows / kShards, 1);
  std::array<int64_t, kShards> position = {};
  int64_t left = meta.rows;
  RowChunk chunk;
  std::vector<std::pair<int64_t, const float*>> found;
  for (int shard = 0; left > 0;) {
    found.clear();
    while (left > 0 && static_cast<int64_t>(found.size()) < chunk_rows) {
      if (position[shard] >= 0) {
        const size_t before = found.size();
        position[shard] = rows.ForEachInShard(
            shard, position[shard], shard_rows,
            [&](int64_t key, const float* row) { found.emplace_back(key, row); });
        left -= found.size() - before;
      }
      shard = (shard + 1) % kShards;
    }
    chunk.keys.resize(found.size());
    chunk.rows.resize(found.size() * width);
    pool->ParallelFor(found.size(), 20 + width / 8, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        chunk.keys[i] = found[i].first;
        std::copy(found[i].second, found[i].second + width, &chunk.rows[i * width]);
      }
    });
    SPARSE_EMB_RETURN_IF_ERROR(sink->Write(&chunk));
  }
  return sink->End();
}

// Reads all rows into `out`, which is empty and is not to be used after an error. `meta` is what
// the source has begun with; they get its state with `keep_state`, otherwise `initial_state`.
template <class Store>
Status LoadRows(RowSource* source, const TableMeta& meta, const Table& table,
                const std::vector<float>& initial_state, bool keep_state, ShardedRows<Store>* out,
                WorkerPool* pool) {
  const TableOptions& options = table.options();
  const int64_t dim = options.dim;
  const int64_t width = meta.row_floats();
  const int64_t shared_counts = std::min(meta.num_counts, options.key_counts.width);
  const bool whole_rows = keep_state && meta.num_counts == options.key_counts.width;
  RowChunk chunk;
  const auto fill = [&](int64_t i, float* row) {
    const float* from = &chunk.rows[i * width];
    if (whole_rows) {
      std::copy(from, from + width, row);
      return;
    }
    std::copy(from, from + dim, row);
    options.key_counts.SetZero(row + out->counts_at(), meta.updates);
    if (shared_counts > 0) {
      std::copy(from + dim, from + dim + 2 * (1 + shared_counts), row + out->counts_at());
    }
    const float* state = keep_state ? from + dim + meta.count_floats() : initial_state.data();
    std::copy(state, state + initial_state.size(), row + out->state_at());
  };
  const auto named = [&](Status status) {
    if (!status.ok()) status.message += " (in " + source->name() + ")";
    return status;
  };
  SPARSE_EMB_RETURN_IF_ERROR(out->Reserve(meta.rows, pool));
  for (;;) {
    SPARSE_EMB_RETURN_IF_ERROR(source->Read(&chunk));
    if (chunk.n() == 0) return {};
    SPARSE_EMB_RETURN_IF_ERROR(named(table.CheckKeys(chunk.keys.data(), chunk.n())));
    int64_t repeated;
    SPARSE_EMB_RETURN_IF_ERROR(
        named(out->InsertAll(chunk.keys.data(), chunk.n(), pool, fill, &repeated)));
    if (repeated >= 0) {
      return Error(Code::kDataLoss, source->name(), " holds key ", chunk.keys[repeated], " twice");
    }
  }
}

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_SHARDED_ROWS_STREAM_H_
