// A thread-safe Table over ShardedRows (sharded_rows.h).
//
// One lock a table, taken for a batch, not for a key: methods that only read rows share it, the
// others have it alone.
#ifndef TF_SPARSE_EMB_CC_LIB_SHARDED_TABLE_H_
#define TF_SPARSE_EMB_CC_LIB_SHARDED_TABLE_H_

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "cc/lib/change_log.h"
#include "cc/lib/fair_lock.h"
#include "cc/lib/grad_reduce.h"
#include "cc/lib/key_dedup.h"
#include "cc/lib/last_lookup.h"
#include "cc/lib/sharded_rows.h"
#include "cc/lib/sharded_rows_check.h"
#include "cc/lib/sharded_rows_stream.h"
#include "cc/lib/table.h"
#include "cc/lib/vector_ops.h"

namespace sparse_emb {

template <class Store>
class ShardedTable final : public Table {
 public:
  explicit ShardedTable(TableOptions table_options)
      : Table(std::move(table_options)), rows_(options(), 0) {}

  using Table::Lookup;

  // Those of sharded_table_lookup.h:
  Status Lookup(const int64_t* keys, int64_t n, bool insert, Missing missing, LookupStart start,
                float* out, WorkerPool* pool) override;
  Moment Now() override;
  bool ReadAt(const Moment& moment, const int64_t* keys, int64_t n, Missing missing, float* out,
              float** rows, int64_t* absent) override;

  Status ReadRows(const int64_t* keys, int64_t n,
                  const std::function<float*(int64_t width)>& allocate, WorkerPool* pool) override {
    SPARSE_EMB_RETURN_IF_ERROR(CheckKeys(keys, n));
    const int64_t dim = options().dim;
    const std::shared_lock lock = LockShared();
    const std::vector<float>& initial_state = binding_.initial_state;
    const int64_t state_width = initial_state.size();
    float* out = allocate(dim + state_width);
    if (out == nullptr) return {};
    rows_.ForEachRow(keys, n, pool, [&](int64_t i, const float* row) {
      float* to = out + i * (dim + state_width);
      if (row == nullptr) {
        rows_.FillMissing(keys[i], Missing::kInitial, to);
        std::copy(initial_state.begin(), initial_state.end(), to + dim);
      } else {
        std::copy(row, row + dim, to);
        std::copy(row + rows_.state_at(), row + rows_.state_at() + state_width, to + dim);
      }
    });
    return {};
  }

  Status Update(const int64_t* keys, const float* grads, int64_t n, const RuleCall& rule,
                int64_t token, bool keys_differ, WorkerPool* pool) override {
    SPARSE_EMB_RETURN_IF_ERROR(CheckRule(rule));
    SPARSE_EMB_RETURN_IF_ERROR(CheckKeys(keys, n));
    if (!keys_differ) SPARSE_EMB_RETURN_IF_ERROR(CheckKeysDiffer(keys, n, pool));
    std::vector<float*> rows;
    const std::unique_lock lock = LockAlone();
    SPARSE_EMB_RETURN_IF_ERROR(CheckBinding(binding_, rule, token));
    if (!last_lookup_.Take(keys, n, moment_.layout, &rows)) {
      rows.resize(n);
      SPARSE_EMB_RETURN_IF_ERROR(FindOrInsert(keys, n, /*padding_too=*/false, rows.data(), pool));
    }
    if (options().padding_key) {
      for (int64_t i = 0; i < n; ++i) {
        if (IsPadding(keys[i])) rows[i] = nullptr;
      }
    }
    ++moment_.changes;
    ++updates_;
    logs_.Add(keys, n);
    ApplyRule(rule, rows.data(), grads, n, options().dim, rows_.state_at(), pool);
    return {};
  }

  Status CheckUpdate(const RuleCall& rule, int64_t token) override {
    SPARSE_EMB_RETURN_IF_ERROR(CheckRule(rule));
    const std::shared_lock lock = LockShared();
    return CheckBinding(binding_, rule, token);
  }

  Status CheckRoom(const int64_t* keys, int64_t n, WorkerPool* pool) override {
    if (options().max_rows < 0) return {};
    std::vector<float*> rows(n);
    std::vector<int64_t> absent;
    const std::shared_lock lock = LockShared();
    rows_.Find(keys, n, rows.data(), pool);
    for (int64_t i = 0; i < n; ++i) {
      if (rows[i] == nullptr && !IsPadding(keys[i])) absent.push_back(keys[i]);
    }
    if (CheckMaxRows(rows_.size(), absent.size()).ok()) return {};
    return CheckMaxRows(rows_.size(), UniqueKeys(absent.data(), absent.size(), pool).size);
  }

  Status Upsert(const int64_t* keys, const float* values, int64_t n, WorkerPool* pool) override {
    SPARSE_EMB_RETURN_IF_ERROR(CheckKeys(keys, n));
    const int64_t dim = options().dim;
    const UniqueKeys unique(keys, n, pool);
    std::vector<int64_t> last(unique.size);
    for (int64_t i = 0; i < n; ++i) last[unique.inverse[i]] = i;
    return Change(unique, pool,
                  [&](int64_t u, float* row) { Copy(values + last[u] * dim, row, dim); });
  }

  Status ScatterAdd(const int64_t* keys, const float* deltas, int64_t n,
                    WorkerPool* pool) override {
    SPARSE_EMB_RETURN_IF_ERROR(CheckKeys(keys, n));
    const int64_t dim = options().dim;
    const UniqueKeys unique(keys, n, pool);
    std::vector<float> sums(unique.size * dim);
    ReduceGrads(deltas, unique.inverse.data(), n, unique.size, dim, 1, sums.data(), pool);
    return Change(unique, pool, [&](int64_t u, float* row) { Add(&sums[u * dim], row, dim); });
  }

  Status Count(const int64_t* keys, const double* amounts, int64_t n, bool keys_differ,
               WorkerPool* pool) override {
    SPARSE_EMB_RETURN_IF_ERROR(CheckKeys(keys, n));
    if (!keys_differ) SPARSE_EMB_RETURN_IF_ERROR(CheckKeysDiffer(keys, n, pool));
    const KeyCounts& counts = options().key_counts;
    for (int64_t i = 0; i < n * counts.width; ++i) {
      if (std::isfinite(amounts[i])) continue;
      return Error(Code::kInvalidArgument, "amounts must be finite, got ", amounts[i], " for key ",
                   keys[i / counts.width], " (table '", options().name, "')");
    }
    const std::unique_lock lock = LockAlone();
    logs_.Add(keys, n);
    rows_.ForEachRow(keys, n, pool, [&](int64_t i, float* row) {
      if (row == nullptr || IsPadding(keys[i])) return;
      counts.Add(row + rows_.counts_at(), updates_, amounts + i * counts.width);
    });
    return {};
  }

  Status GetCounts(const int64_t* keys, int64_t n, double* out, WorkerPool* pool) override {
    SPARSE_EMB_RETURN_IF_ERROR(CheckKeys(keys, n));
    const KeyCounts& counts = options().key_counts;
    std::fill(out, out + n * counts.width, 0.0);
    const std::shared_lock lock = LockShared();
    rows_.ForEachRow(keys, n, pool, [&](int64_t i, const float* row) {
      if (row != nullptr) counts.Get(row + rows_.counts_at(), updates_, out + i * counts.width);
    });
    return {};
  }

  Status Contains(const int64_t* keys, int64_t n, bool* out, WorkerPool* pool) override {
    SPARSE_EMB_RETURN_IF_ERROR(CheckKeys(keys, n));
    const std::shared_lock lock = LockShared();
    rows_.ForEachRow(keys, n, pool, [&](int64_t i, const float* row) { out[i] = row != nullptr; });
    return {};
  }

  Status Remove(const int64_t* keys, int64_t n, WorkerPool* pool) override {
    SPARSE_EMB_RETURN_IF_ERROR(CheckKeys(keys, n));
    const std::unique_lock lock = LockAlone();
    ++moment_.changes;
    ++moment_.layout;
    logs_.Add(keys, n);
    rows_.Remove(keys, n, pool);
    return {};
  }

  void Clear() override {
    const std::unique_lock lock = LockAlone();
    ++moment_.changes;
    ++moment_.layout;
    logs_.AddEverything();
    rows_.Clear();
  }

  int64_t Size() override {
    const std::shared_lock lock = LockShared();
    return rows_.size();
  }

  int64_t MemoryBytes() override {
    const std::shared_lock lock = LockShared();
    return rows_.MemoryBytes();
  }

  TableStatistics Statistics() override {
    const std::shared_lock lock = LockShared();
    TableStatistics out = rows_.Statistics();
    const int64_t state_floats = options().key_counts.floats() + binding_.initial_state.size();
    out.row_bytes = out.rows * options().dim * sizeof(float);
    out.state_bytes = out.rows * state_floats * sizeof(float);
    return out;
  }

  Status Check(const Share& share, bool finite, WorkerPool* pool, int64_t* rows) override {
    const std::shared_lock lock = LockShared();
    Status status = CheckAll(share, finite, pool);
    if (!status.ok()) status.message = "table '" + options().name + "': " + status.message;
    *rows = rows_.size();
    return status;
  }

  // Those of sharded_table_saving.h:
  Status Export(bool with_state, int64_t cursor, int64_t limit, const Allocate& allocate,
                std::string* rule, int64_t* next) override;
  Status Restore(const TableRows& in, const std::string& rule, WorkerPool* pool) override;
  Status Save(bool with_state, RowSink* sink, WorkerPool* pool) override;
  int64_t OpenLog() override;
  void CloseLog(int64_t log) override;
  Status Changes(int64_t log, bool* everything, int64_t* keys) override;
  Status SaveInChain(int64_t log, const std::string& save, bool increment, RowSink* sink,
                     WorkerPool* pool) override;
  Status ConfirmSave(int64_t log) override;
  Status Load(RowSource* source, WorkerPool* pool, LoadReport* report) override;
  Status LoadChains(const Chains& all, const Share& share, int64_t log, WorkerPool* pool,
                    LoadReport* report) override;

  Status Bind(const std::string& rule, std::vector<float> initial_state, WorkerPool* pool,
              int64_t* token, std::string* dropped_rule) override {
    if (dropped_rule != nullptr) dropped_rule->clear();
    RuleInfo info;
    SPARSE_EMB_RETURN_IF_ERROR(FindRule(rule, &info));
    const int64_t dim = options().dim;
    const int64_t state_width = static_cast<int64_t>(initial_state.size());
    if (state_width != info.state_width(dim)) {
      return Error(Code::kInvalidArgument, "initial_state of rule ", rule, " must have ",
                   info.state_width(dim), " values for rows of width ", dim, ", got ", state_width);
    }
    const std::unique_lock lock = LockAlone();
    const bool waits = binding_.token == 0 && !binding_.initial_state.empty();  // was loaded
    if (waits && rule == binding_.rule) {
      binding_ = {rule, std::move(initial_state), *token = ++last_token_};
      return {};
    }
    if (waits && dropped_rule != nullptr) *dropped_rule = binding_.rule;
    const bool resize = state_width != stored_state_width_;
    // Until all rows have the new width the table has no optimizer: if memory runs out midway, no
    // embedding is lost, but the state is.
    binding_ = {};
    stored_state_width_ = -1;
    ++moment_.layout;
    logs_.AddEverything();
    SPARSE_EMB_RETURN_IF_ERROR(rows_.SetState(initial_state, resize, pool));
    stored_state_width_ = state_width;
    binding_ = {rule, std::move(initial_state), *token = ++last_token_};
    return {};
  }

 private:
  friend struct StorePeer;
  std::shared_lock<std::shared_mutex> LockShared() const { return lock_.Shared(); }
  std::unique_lock<std::shared_mutex> LockAlone() { return lock_.Alone(); }

  // Those of sharded_table_lookup.h:
  struct AbsentKeys;
  struct LongRows;
  AbsentKeys FindAbsent(const int64_t* keys, int64_t n, int64_t count, float* const* found,
                        float* out, WorkerPool* pool) const;
  Status InsertAbsent(const AbsentKeys& absent, float** found, float* out, WorkerPool* pool);
  Status ReadOrInsertAlone(const int64_t* keys, int64_t n, float** found, float* out,
                           WorkerPool* pool);
  Status ReadOrInsert(const int64_t* keys, int64_t n, LookupStart start, float* out,
                      int64_t* changes, WorkerPool* pool);
  void BoundNorm(float* row) const;
  void FindLongRows(const int64_t* keys, int64_t n, const float* out, LongRows* found,
                    WorkerPool* pool) const;
  Status BoundNormsInPlace(const int64_t* keys, int64_t n, int64_t changes, float* out,
                           LongRows* found, WorkerPool* pool);

  // What Check finds.
  Status CheckAll(const Share& share, bool finite, WorkerPool* pool) const {
    const RowChecker<Store> checker(options(), rows_, share, finite, stored_state_width_, updates_);
    SPARSE_EMB_RETURN_IF_ERROR(checker.Check(pool));
    if (options().max_rows >= 0 && rows_.size() > options().max_rows) {
      return Error(Code::kDataLoss, rows_.size(),
                   " rows are more than max_rows = ", options().max_rows);
    }
    if (const int64_t width = binding_.initial_state.size();
        width != std::max<int64_t>(stored_state_width_, 0)) {
      return Error(Code::kDataLoss, "rows have ", stored_state_width_, " floats of state, rule ",
                   binding_.rule, " needs ", width);
    }
    Status status;
    last_lookup_.ForEach(moment_.layout, [&](int64_t key, const float* row) {
      float* found;
      SerialPool serial;
      rows_.Find(&key, 1, &found, &serial);
      if (found == row || (row == nullptr && IsPadding(key)) || !status.ok()) return;
      status = Error(Code::kDataLoss, "key ", key, " is kept for the next update with a row that ",
                     "is not its own");
    });
    return status;
  }

  Status NoLog(int64_t log) const {
    return Error(Code::kInvalidArgument, "table '", options().name, "' has no log ", log);
  }

  // Calls fn(u, row of unique key u) for all, inserting those that are missing.
  template <class Fn>
  Status Change(const UniqueKeys& unique, WorkerPool* pool, const Fn& fn) {
    std::vector<float*> rows(unique.size);
    const std::unique_lock lock = LockAlone();
    SPARSE_EMB_RETURN_IF_ERROR(
        FindOrInsert(unique.keys.data(), unique.size, /*padding_too=*/true, rows.data(), pool));
    ++moment_.changes;
    logs_.Add(unique.keys.data(), unique.size);
    pool->ParallelFor(unique.size, rows_.SearchCost(), [&](int64_t begin, int64_t end) {
      for (int64_t u = begin; u < end; ++u) fn(u, rows[u]);
    });
    return {};
  }

  // rows[i] = the row of keys[i], which differ, inserted with its initial values where it is
  // missing; a missing padding key only if `padding_too`, else null. Needs the table alone.
  Status FindOrInsert(const int64_t* keys, int64_t n, bool padding_too, float** rows,
                      WorkerPool* pool) {
    rows_.Find(keys, n, rows, pool);
    std::vector<int64_t> absent;
    for (int64_t i = 0; i < n; ++i) {
      if (rows[i] == nullptr && (padding_too || !IsPadding(keys[i]))) absent.push_back(keys[i]);
    }
    if (absent.empty()) return {};
    const int64_t count = static_cast<int64_t>(absent.size());
    SPARSE_EMB_RETURN_IF_ERROR(CheckMaxRows(rows_.size(), count));
    // Before, because making room may move the rows of some shards before memory runs out.
    if (!Store::kRowsStay) ++moment_.layout;
    ++moment_.inserts;
    SPARSE_EMB_RETURN_IF_ERROR(
        rows_.Insert(absent.data(), count, binding_.initial_state, updates_, pool));
    rows_.Find(keys, n, rows, pool);  // again, because making room may have moved rows
    return {};
  }

  Status CheckKeysDiffer(const int64_t* keys, int64_t n, WorkerPool* pool) const {
    const UniqueKeys unique(keys, n, pool);
    if (unique.size == n) return {};
    // While no key has come twice, the i-th key is the i-th unique one.
    int64_t i = 0;
    while (unique.inverse[i] == i) ++i;
    return Error(Code::kInvalidArgument, "keys must differ, got key ", keys[i], " at positions ",
                 unique.inverse[i], " and ", i, " (table '", options().name, "')");
  }

  mutable FairLock lock_;  // guards all below
  ShardedRows<Store> rows_;
  LastLookup last_lookup_;
  Binding binding_;
  int64_t stored_state_width_ = 0;  // of all rows; -1: a Bind failed, they may differ
  int64_t last_token_ = 0;
  Moment moment_{0, 0, 0};
  int64_t updates_ = 0;  // the step of the counts
  ChangeLogs logs_;      // those who share the table take a log's own lock as well
};

}  // namespace sparse_emb

#include "cc/lib/sharded_table_lookup.h"
#include "cc/lib/sharded_table_saving.h"

#endif  // TF_SPARSE_EMB_CC_LIB_SHARDED_TABLE_H_
