// ShardedRows to a RowSink and from a RowSource (table_stream.h).
#ifndef TF_SPARSE_EMB_CC_LIB_SHARDED_ROWS_STREAM_H_
#define TF_SPARSE_EMB_CC_LIB_SHARDED_ROWS_STREAM_H_

#include <algorithm>
#include <array>
#include <cstdint>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "cc/lib/change_log.h"
#include "cc/lib/in_turn.h"
#include "cc/lib/read_ahead.h"
#include "cc/lib/sharded_rows.h"
#include "cc/lib/table.h"
#include "cc/lib/table_stream.h"

namespace sparse_emb {

// The rows of a chunk in the table: keys and where they stand.
using FoundRows = std::vector<std::pair<int64_t, const float*>>;

// How many rows of so many floats make a chunk.
inline int64_t ChunkRows(int64_t row_floats) {
  const int64_t row_bytes = sizeof(int64_t) + row_floats * sizeof(float);
  return std::max<int64_t>(kChunkBytes / row_bytes, 1);
}

// Writes the chunks of which next(&found, &removed) says what is in them, until it returns false.
// Two threads take the chunks in turn: while one has a chunk written the other copies the rows of
// the next. Each does all that is to be done with its chunk, which stays in the cache of its
// processor from the copy to the write.
template <class Next>
Status WriteChunks(const TableMeta& meta, int64_t chunks, RowSink* sink, const Next& next) {
  const int64_t width = meta.row_floats();
  InTurn jobs;
  std::mutex taking;
  int64_t taken = 0;
  RunOnOwnThreads(chunks > 1 ? 2 : 1, [&] {
    RowChunk chunk;
    FoundRows found;
    for (bool is_last = false; !is_last && jobs.status().ok();) {
      MemoryGuard memory(meta.name);
      std::unique_lock alone(taking);
      const int64_t job = taken++;
      memory.Run([&] { is_last = !next(&found, &chunk.removed); });
      alone.unlock();
      Status status;
      memory.Run([&] {
        if (is_last || !memory.status().ok()) return;
        chunk.keys.resize(found.size());
        chunk.rows.resize(found.size() * width);
        float* to = chunk.rows.data();
        for (size_t i = 0; i < found.size(); ++i, to += width) {
          chunk.keys[i] = found[i].first;
          std::copy(found[i].second, found[i].second + width, to);
        }
        status = sink->Write(chunk, Turn(&jobs, job));
      });
      jobs.Done(job, memory.status().ok() ? std::move(status) : memory.status());
    }
  });
  SPARSE_EMB_RETURN_IF_ERROR(jobs.status());
  return sink->End();
}

// Writes all rows, the first meta.row_floats() floats of each. A chunk takes some of every shard,
// so that a load can fill all shards at once; within a shard rows come in the storage's order, and
// a table that is loaded from a table of its own storage has that order again.
template <class Store>
Status SaveRows(const ShardedRows<Store>& rows, const TableMeta& meta, RowSink* sink) {
  SPARSE_EMB_RETURN_IF_ERROR(sink->Begin(meta));
  const int64_t chunk_rows = ChunkRows(meta.row_floats());
  const int64_t shard_rows = std::max<int64_t>(chunk_rows / kShards, 1);
  std::array<int64_t, kShards> position = {};
  int64_t left = meta.rows;
  int shard = 0;
  const auto next = [&](FoundRows* found, std::vector<int64_t>*) {
    found->clear();
    while (left > 0 && static_cast<int64_t>(found->size()) < chunk_rows) {
      if (position[shard] >= 0) {
        const size_t before = found->size();
        position[shard] = rows.ForEachInShard(
            shard, position[shard], shard_rows,
            [&](int64_t key, const float* row) { found->emplace_back(key, row); });
        left -= found->size() - before;
      }
      shard = (shard + 1) % kShards;
    }
    return !found->empty();
  };
  return WriteChunks(meta, 1 + meta.rows / chunk_rows, sink, next);
}

// Writes what an increment has of these keys: their rows, and which of them are not there. Sets
// meta.rows.
template <class Store>
Status SaveChangedRows(const ShardedRows<Store>& rows, const KeySet& changed, TableMeta meta,
                       RowSink* sink, WorkerPool* pool) {
  const int64_t chunk_rows = ChunkRows(meta.row_floats());
  std::vector<int64_t> keys;
  std::vector<float*> places(std::min(chunk_rows, changed.size()));
  meta.rows = 0;
  for (int64_t cursor = 0; changed.Next(&cursor, chunk_rows, &keys);) {
    rows.Find(keys.data(), keys.size(), places.data(), pool);
    for (size_t i = 0; i < keys.size(); ++i) meta.rows += places[i] != nullptr;
  }
  SPARSE_EMB_RETURN_IF_ERROR(sink->Begin(meta));
  int64_t cursor = 0;
  const auto next = [&](FoundRows* found, std::vector<int64_t>* removed) {
    found->clear();
    removed->clear();
    if (!changed.Next(&cursor, chunk_rows, &keys)) return false;
    rows.Find(keys.data(), keys.size(), places.data(), pool);
    for (size_t i = 0; i < keys.size(); ++i) {
      if (places[i] == nullptr) {
        removed->push_back(keys[i]);
      } else {
        found->emplace_back(keys[i], places[i]);
      }
    }
    return true;
  };
  return WriteChunks(meta, 1 + changed.size() / chunk_rows, sink, next);
}

// Reads what `share` has of whole tables and their increments into `out`, which is empty and is not
// to be used after an error. `meta` is what the sources have begun with; rows get its state with
// `keep_state`, otherwise `initial_state`.
template <class Store>
class RowLoader {
 public:
  RowLoader(const Table& table, const Share& share, const TableMeta& meta,
            const std::vector<float>& initial_state, bool keep_state, ShardedRows<Store>* out,
            WorkerPool* pool)
      : table_(table),
        share_(share),
        options_(table.options()),
        meta_(meta),
        initial_state_(initial_state),
        keep_state_(keep_state),
        out_(out),
        pool_(pool) {}

  // Whether rows are in the table bit for bit as in the source.
  bool WholeRows() const {
    const bool same_state = keep_state_ || (meta_.state_width() == 0 && initial_state_.empty());
    return same_state && meta_.num_counts == options_.key_counts.width;
  }

  // Of a whole table that has begun.
  Status LoadRows(RowSource* source) {
    return ForEachChunk(source, [&](const RowChunk& chunk) {
      return Insert(source, chunk, chunk.keys, [](int64_t i) { return i; });
    });
  }

  // Of an increment that has begun.
  Status ApplyChanges(RowSource* source) {
    std::vector<float*> rows;
    std::vector<int64_t> absent, positions;
    return ForEachChunk(source, [&](const RowChunk& chunk) {
      out_->Remove(chunk.removed.data(), chunk.removed.size(), pool_);
      rows.resize(chunk.n());
      out_->Find(chunk.keys.data(), chunk.n(), rows.data(), pool_);
      absent.clear();
      positions.clear();
      for (int64_t i = 0; i < chunk.n(); ++i) {
        if (rows[i] != nullptr) {
          Fill(chunk, i, rows[i]);
        } else {
          absent.push_back(chunk.keys[i]);
          positions.push_back(i);
        }
      }
      return Insert(source, chunk, absent, [&](int64_t j) { return positions[j]; });
    });
  }

 private:
  template <class Fn>
  Status ForEachChunk(RowSource* source, const Fn& fn) {
    ReadAhead chunks(source);
    for (;;) {
      RowChunk* chunk;
      SPARSE_EMB_RETURN_IF_ERROR(chunks.Next(&chunk));
      if (chunk->empty()) return {};
      for (const std::vector<int64_t>* keys : {&chunk->keys, &chunk->removed}) {
        SPARSE_EMB_RETURN_IF_ERROR(Named(source, table_.CheckKeys(keys->data(), keys->size())));
      }
      if (share_.num_servers > 1) KeepOwn(chunk);
      SPARSE_EMB_RETURN_IF_ERROR(fn(*chunk));
    }
  }

  void KeepOwn(RowChunk* chunk) const {
    const int64_t width = meta_.row_floats();
    int64_t kept = 0;
    for (int64_t i = 0; i < chunk->n(); ++i) {
      if (!share_.Has(chunk->keys[i])) continue;
      if (kept < i) {
        chunk->keys[kept] = chunk->keys[i];
        std::copy_n(&chunk->rows[i * width], width, &chunk->rows[kept * width]);
      }
      ++kept;
    }
    chunk->keys.resize(kept);
    chunk->rows.resize(kept * width);
    const auto is_other = [&](int64_t key) { return !share_.Has(key); };
    std::vector<int64_t>& removed = chunk->removed;
    removed.erase(std::remove_if(removed.begin(), removed.end(), is_other), removed.end());
  }

  // Inserts keys, of which key j has the row of the chunk at position_of(j).
  template <class Fn>
  Status Insert(RowSource* source, const RowChunk& chunk, const std::vector<int64_t>& keys,
                const Fn& position_of) {
    int64_t repeated;
    SPARSE_EMB_RETURN_IF_ERROR(Named(
        source, out_->InsertAll(
                    keys.data(), keys.size(), pool_,
                    [&](int64_t j, float* row) { Fill(chunk, position_of(j), row); }, &repeated)));
    if (repeated < 0) return {};
    return Error(Code::kDataLoss, source->name(), " holds key ", keys[repeated], " twice");
  }

  void Fill(const RowChunk& chunk, int64_t i, float* row) const {
    const int64_t dim = options_.dim, width = meta_.row_floats();
    const float* from = &chunk.rows[i * width];
    if (WholeRows()) {
      std::copy(from, from + width, row);
      return;
    }
    std::copy(from, from + dim, row);
    options_.key_counts.SetZero(row + out_->counts_at(), meta_.updates);
    const int64_t shared_counts = std::min(meta_.num_counts, options_.key_counts.width);
    if (shared_counts > 0) {
      std::copy(from + dim, from + dim + 2 * (1 + shared_counts), row + out_->counts_at());
    }
    const float* state = keep_state_ ? from + dim + meta_.count_floats() : initial_state_.data();
    std::copy(state, state + initial_state_.size(), row + out_->state_at());
  }

  static Status Named(RowSource* source, Status status) {
    if (!status.ok()) status.message += " (in " + source->name() + ")";
    return status;
  }

  const Table& table_;
  const Share& share_;
  const TableOptions& options_;
  const TableMeta& meta_;
  const std::vector<float>& initial_state_;
  const bool keep_state_;
  ShardedRows<Store>* const out_;
  WorkerPool* const pool_;
};

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_SHARDED_ROWS_STREAM_H_
