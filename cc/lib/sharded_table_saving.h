// How a ShardedTable is exported, restored, saved and loaded; sharded_table.h includes this.
#ifndef TF_SPARSE_EMB_CC_LIB_SHARDED_TABLE_SAVING_H_
#define TF_SPARSE_EMB_CC_LIB_SHARDED_TABLE_SAVING_H_

#include <algorithm>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "cc/lib/sharded_rows_stream.h"
#include "cc/lib/sharded_table.h"

namespace sparse_emb {

template <class Store>
Status ShardedTable<Store>::Export(bool with_state, int64_t cursor, int64_t limit,
                                   const Allocate& allocate, std::string* rule, int64_t* next) {
  if (cursor < 0) {
    return Error(Code::kInvalidArgument, "cursor must be 0 or what came before, got ", cursor);
  }
  if (limit <= 0) return Error(Code::kInvalidArgument, "max_rows must be positive, got ", limit);
  const std::shared_lock lock = LockShared();
  *rule = with_state ? binding_.rule : "";
  const int64_t dim = options().dim;
  const int64_t state_width = with_state ? binding_.initial_state.size() : 0;
  const KeyCounts& counts = options().key_counts;
  TableRows out;
  const auto write = [&](int64_t key, const float* row) {
    *out.keys++ = key;
    out.rows = std::copy(row, row + dim, out.rows);
    const float* state = row + rows_.state_at();
    out.rows = std::copy(state, state + state_width, out.rows);
    counts.Get(row + rows_.counts_at(), updates_, out.counts);
    out.counts += counts.width;
  };
  if (cursor == 0 && limit >= rows_.size()) {
    out = allocate(rows_.size(), dim + state_width);
    *next = -1;
    if (out.keys != nullptr) rows_.ForEachFrom(0, kNoLimit, write);
    return {};
  }
  std::vector<std::pair<int64_t, const float*>> found;
  *next = rows_.ForEachFrom(cursor, limit,
                            [&](int64_t key, const float* row) { found.emplace_back(key, row); });
  out = allocate(found.size(), dim + state_width);
  if (out.keys == nullptr) return {};
  for (const auto& [key, row] : found) write(key, row);
  return {};
}

template <class Store>
Status ShardedTable<Store>::Restore(const TableRows& in, const std::string& rule,
                                    WorkerPool* pool) {
  SPARSE_EMB_RETURN_IF_ERROR(CheckKeys(in.keys, in.n));
  SPARSE_EMB_RETURN_IF_ERROR(CheckKeysDiffer(in.keys, in.n, pool));
  const int64_t dim = options().dim;
  if (in.width < dim) {
    return Error(Code::kInvalidArgument, "rows must be at least ", dim, " wide, got ", in.width);
  }
  const int64_t max_rows = options().max_rows;
  if (max_rows >= 0 && in.n > max_rows) {
    return Error(Code::kResourceExhausted, "table '", options().name, "' has max_rows = ", max_rows,
                 " and cannot take ", in.n, " rows");
  }
  const std::unique_lock lock = LockAlone();
  const bool keep_state = !rule.empty() && rule == binding_.rule;
  // State that was loaded and not yet claimed goes with the rows that had it.
  const Binding binding = keep_state || binding_.token != 0 ? binding_ : Binding{};
  const int64_t state_width = binding.initial_state.size();
  if (keep_state && in.width != dim + state_width) {
    return Error(Code::kInvalidArgument, "rows with the state of rule ", rule, " must be ",
                 dim + state_width, " wide, got ", in.width);
  }
  const KeyCounts& counts = options().key_counts;
  MemoryGuard memory(options().name);
  Status status;
  memory.Run([&] {
    ShardedRows<Store> restored(options(), state_width);
    status = restored.Insert(in.keys, in.n, binding.initial_state, updates_, pool);
    if (!status.ok()) return;
    restored.ForEachRow(in.keys, in.n, pool, [&](int64_t i, float* row) {
      const float* from = in.rows + i * in.width;
      std::copy(from, from + dim, row);
      if (keep_state) std::copy(from + dim, from + in.width, row + restored.state_at());
      if (in.counts == nullptr) return;
      counts.Set(row + restored.counts_at(), updates_, in.counts + i * counts.width);
    });
    ++moment_.layout;
    rows_ = std::move(restored);
  });
  SPARSE_EMB_RETURN_IF_ERROR(memory.status());
  SPARSE_EMB_RETURN_IF_ERROR(status);
  binding_ = binding;
  stored_state_width_ = state_width;
  ++moment_.changes;
  logs_.AddEverything();
  return {};
}

template <class Store>
Status ShardedTable<Store>::Save(bool with_state, RowSink* sink, WorkerPool*) {
  const std::shared_lock lock = LockShared();
  const Binding none;
  return SaveRows(rows_, Describe(with_state ? binding_ : none, rows_.size(), updates_), sink);
}

template <class Store>
int64_t ShardedTable<Store>::OpenLog() {
  const std::unique_lock lock = LockAlone();
  return logs_.Open();
}

template <class Store>
void ShardedTable<Store>::CloseLog(int64_t log) {
  const std::unique_lock lock = LockAlone();
  logs_.Close(log);
}

template <class Store>
Status ShardedTable<Store>::Changes(int64_t log, bool* everything, int64_t* keys) {
  const std::shared_lock lock = LockShared();
  ChangeLog* const changes = logs_.Find(log);
  if (changes == nullptr) return NoLog(log);
  const std::lock_guard alone(changes->mutex());
  *everything = changes->everything();
  *keys = changes->MaxKeys();
  return {};
}

template <class Store>
Status ShardedTable<Store>::SaveInChain(int64_t log, const std::string& save, bool increment,
                                        RowSink* sink, WorkerPool* pool) {
  const std::shared_lock lock = LockShared();
  ChangeLog* const changes = logs_.Find(log);
  if (changes == nullptr) return NoLog(log);
  const std::lock_guard alone(changes->mutex());
  changes->Take();
  if (increment && changes->everything()) {
    return Error(Code::kFailedPrecondition, "table '", options().name,
                 "' was filled, cleared or bound anew since it was last saved: it must be saved "
                 "whole");
  }
  TableMeta meta = Describe(binding_, rows_.size(), updates_);
  meta.save = save;
  meta.increment = increment;
  return increment ? SaveChangedRows(rows_, changes->taken(), std::move(meta), sink, pool)
                   : SaveRows(rows_, meta, sink);
}

template <class Store>
Status ShardedTable<Store>::ConfirmSave(int64_t log) {
  const std::unique_lock lock = LockAlone();
  ChangeLog* const changes = logs_.Find(log);
  if (changes == nullptr) return NoLog(log);
  changes->Confirm();
  return {};
}

template <class Store>
Status ShardedTable<Store>::Load(RowSource* source, WorkerPool* pool, LoadReport* report) {
  return LoadChains({{source}}, {}, 0, pool, report);
}

template <class Store>
Status ShardedTable<Store>::LoadChains(const Chains& all, const Share& share, int64_t log,
                                       WorkerPool* pool, LoadReport* report) {
  Chains chains;
  int64_t rows = 0;
  SPARSE_EMB_RETURN_IF_ERROR(BeginChains(all, share, &chains, &rows, report));
  const std::string name = chains[0][0]->name();
  const std::unique_lock lock = LockAlone();
  ChangeLog* const changes = logs_.Find(log);
  if (log != 0 && changes == nullptr) return NoLog(log);
  Binding binding;
  SPARSE_EMB_RETURN_IF_ERROR(CheckLoad(binding_, name, &binding, report));
  const std::vector<float>& state = binding.initial_state;
  ShardedRows<Store> loaded(options(), state.size());
  SPARSE_EMB_RETURN_IF_ERROR(loaded.Reserve(rows, pool));
  RowLoader<Store> loader(*this, share, report->meta, state, report->kept_state, &loaded, pool);
  for (const std::vector<RowSource*>& chain : chains) {
    SPARSE_EMB_RETURN_IF_ERROR(loader.LoadRows(chain[0]));
    for (size_t i = 1; i < chain.size(); ++i) {
      TableMeta meta;
      SPARSE_EMB_RETURN_IF_ERROR(chain[i]->Begin(&meta));
      SPARSE_EMB_RETURN_IF_ERROR(
          CheckPart(report->meta, meta, /*increment=*/true, chain[i]->name()));
      SPARSE_EMB_RETURN_IF_ERROR(loader.ApplyChanges(chain[i]));
      report->meta.updates = std::max(report->meta.updates, meta.updates);
    }
  }
  SPARSE_EMB_RETURN_IF_ERROR(CheckRows(loaded.size(), name));
  const bool is_as_saved = static_cast<int64_t>(all.size()) == share.num_servers &&
                           loader.WholeRows() && binding.rule == report->meta.rule;
  rows_ = std::move(loaded);
  stored_state_width_ = state.size();
  binding_ = std::move(binding);
  updates_ = report->meta.updates;
  SetSeed(report->meta.seed);
  ++moment_.changes;
  ++moment_.layout;
  logs_.AddEverything();
  if (changes != nullptr && is_as_saved) changes->Reset();
  return {};
}

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_SHARDED_TABLE_SAVING_H_
