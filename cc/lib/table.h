// An embedding table: int64 key -> row [embedding: D floats | counts | optimizer state: S floats].
//
// This is the `LookupableEmbeddingVar` of the literature (GetEmbedding, PutEmbedding, emb_len), on
// batches: a virtual call and a lock for each key would cost more than the work.
//
// Every int64 is a valid key. A key that is not in the table reads as its initial row, a function
// of (seed, key) alone (initial_row.h), or as zeros.
//
// All methods are thread-safe: those that only read rows share the table, those that change rows
// have it alone, so nobody sees half of an update. Each method validates, then mutates: one that
// returns an error, or throws std::bad_alloc, has changed nothing (but see Bind). Results do not
// depend on the number of threads of the pool.
#ifndef TF_SPARSE_EMB_CC_LIB_TABLE_H_
#define TF_SPARSE_EMB_CC_LIB_TABLE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cc/lib/initial_row.h"
#include "cc/lib/key_counts.h"
#include "cc/lib/max_norm.h"
#include "cc/lib/partition.h"
#include "cc/lib/status.h"
#include "cc/lib/table_stream.h"
#include "cc/lib/update_rules.h"
#include "cc/lib/worker_pool.h"

namespace sparse_emb {

struct TableOptions {
  std::string name;              // for error messages
  std::string storage = "slab";  // one that MakeTable knows
  int64_t dim = 0;               // D > 0
  int64_t input_dim = -1;        // keys must be in [0, input_dim); -1: every int64
  int64_t max_rows = -1;         // the table never holds more; -1: no bound
  InitialRow initial_row;        // Load sets its seed, with the table alone
  // Its initial row is zeros. Only Upsert, ScatterAdd and Restore make its row, and no update
  // changes it; max_norm bounds it as any other, as in PyTorch.
  std::optional<int64_t> padding_key;
  MaxNorm max_norm;      // of the rows that are looked up
  KeyCounts key_counts;  // which are kept in the rows
};

// What a key that is not in the table reads as.
enum class Missing { kInitial, kZeros };

// An optimizer's claim on the table: the rule by which the rows' state is kept. Without a token
// the state was loaded, and waits for an optimizer of its rule.
struct Binding {
  std::string rule;                  // empty: no optimizer yet
  std::vector<float> initial_state;  // S floats
  int64_t token = 0;                 // tells this binding from all others of the table
};

// The content of a table, or a part of it: keys [n], which differ, and for each a row of `width` =
// D + S floats, the embedding and the state of `rule`, and its K counts.
struct TableRows {
  int64_t* keys = nullptr;
  float* rows = nullptr;
  double* counts = nullptr;
  int64_t n = 0;
  int64_t width = 0;
};

// How full a table is, and how well its keys are spread.
struct TableStatistics {
  int64_t rows = 0;
  int64_t capacity = 0;      // rows that the index can hold before it grows
  int64_t probes = 0;        // places of the index that finding every key once reads
  int64_t max_probes = 0;    // the most that finding one key reads
  int64_t memory_bytes = 0;  // of all
  int64_t row_bytes = 0;     // of the embeddings in use
  int64_t state_bytes = 0;   // of the counts and the state in use
};

// As long as a table is at one moment, it has the same rows with the same values where they stand.
struct Moment {
  int64_t changes = -1;  // counts what changes or removes rows that exist
  int64_t layout = -1;   // counts what moves or removes them
  int64_t inserts = -1;  // counts what adds rows

  bool operator==(const Moment& other) const {
    return changes == other.changes && layout == other.layout && inserts == other.inserts;
  }
  bool operator!=(const Moment& other) const { return !(*this == other); }
};

// What was read of a lookup before all of its keys were known: the embeddings of its first `size`
// keys, which stand in its `out`.
struct LookupStart {
  Moment moment;
  int64_t size = 0;
  int64_t absent = 0;        // how many of them are not in the table
  std::vector<float*> rows;  // of a lookup that inserts: where they stand, or null
};

class Table {
 public:
  explicit Table(TableOptions options) : options_(std::move(options)) {}
  virtual ~Table() = default;
  Table(const Table&) = delete;
  Table& operator=(const Table&) = delete;

  const TableOptions& options() const { return options_; }
  bool IsPadding(int64_t key) const { return options_.padding_key == key; }

  // out[i] = the embedding of keys[i], for i in [0, n). With `insert` a missing key is given its
  // initial row first; without it nothing changes and the key reads as `missing` says. A row whose
  // norm is beyond max_norm is scaled, with `insert` in the table, without in `out` alone.
  Status Lookup(const int64_t* keys, int64_t n, bool insert, Missing missing, float* out,
                WorkerPool* pool) {
    return Lookup(keys, n, insert, missing, {}, out, pool);
  }

  // The same, with what was read of it ahead, which is read again if the moment has passed.
  virtual Status Lookup(const int64_t* keys, int64_t n, bool insert, Missing missing,
                        LookupStart start, float* out, WorkerPool* pool) = 0;

  virtual Moment Now() = 0;

  // Reads keys [n] ahead, as Lookup does, out [n, D]; with `rows`, for a lookup that inserts, which
  // leaves alone what is missing, rows[i] = where keys[i] stands or null, and *absent += how many
  // do not. False, and nothing is to be used, if the moment has passed, the table is busy or a key
  // is out of range.
  virtual bool ReadAt(const Moment& moment, const int64_t* keys, int64_t n, Missing missing,
                      float* out, float** rows, int64_t* absent) = 0;

  // Writes the rows of keys as they are in the table, [embedding | state], to allocate(D + S); a
  // missing key's are its initial ones. Norms are not bounded.
  virtual Status ReadRows(const int64_t* keys, int64_t n,
                          const std::function<float*(int64_t width)>& allocate,
                          WorkerPool* pool) = 0;

  // Applies the rule to the rows of keys, which must differ, with the gradients grads [n, D]. A
  // missing key is inserted first. `token` is that of the binding the caller believes in; 0
  // accepts any binding of the same rule. `keys_differ` is the caller's word that they do.
  virtual Status Update(const int64_t* keys, const float* grads, int64_t n, const RuleCall& rule,
                        int64_t token, bool keys_differ, WorkerPool* pool) = 0;

  // The error that Update would return for the table's binding, and that Update or Lookup with
  // `insert` would return because of max_rows: for an operation on several tables, which must not
  // have changed one when another refuses.
  virtual Status CheckUpdate(const RuleCall& rule, int64_t token) = 0;
  virtual Status CheckRoom(const int64_t* keys, int64_t n, WorkerPool* pool) = 0;

  // Sets the embeddings of keys to rows [n, D]; the last of a repeated key wins. New rows get the
  // initial state, rows that exist keep theirs.
  virtual Status Upsert(const int64_t* keys, const float* rows, int64_t n, WorkerPool* pool) = 0;

  // Adds deltas [n, D] to the embeddings of keys, those of a repeated key in order. A missing key
  // is inserted first.
  virtual Status ScatterAdd(const int64_t* keys, const float* deltas, int64_t n,
                            WorkerPool* pool) = 0;

  // Adds amounts [n, K] to the counts of keys, which must differ; those that are not in the table,
  // and the padding key, are passed over. The step of the counts is the number of updates so far.
  // `keys_differ` is the caller's word that they do.
  virtual Status Count(const int64_t* keys, const double* amounts, int64_t n, bool keys_differ,
                       WorkerPool* pool) = 0;

  // out [n, K] = the counts of keys; zeros where a key is not in the table.
  virtual Status GetCounts(const int64_t* keys, int64_t n, double* out, WorkerPool* pool) = 0;

  // out[i] = whether keys[i] is in the table.
  virtual Status Contains(const int64_t* keys, int64_t n, bool* out, WorkerPool* pool) = 0;

  // Forgets the keys; those that are not in the table are passed over.
  virtual Status Remove(const int64_t* keys, int64_t n, WorkerPool* pool) = 0;

  virtual void Clear() = 0;

  virtual int64_t Size() = 0;

  // Bytes of the rows, their state and the index.
  virtual int64_t MemoryBytes() = 0;

  virtual TableStatistics Statistics() = 0;

  // Walks all rows and finds each again: a kDataLoss error that names the table, the key and what
  // is wrong unless index and rows agree, no key is there twice, none is lost, each is where the
  // hash, [0, input_dim) and `share` want it, and counts, and with `finite` rows and state, are
  // finite. *rows is how many there are. Shares the table; costs about two searches a key.
  virtual Status Check(const Share& share, bool finite, WorkerPool* pool, int64_t* rows) = 0;

  // Writes rows in the storage's order, from the position `cursor` on (0: the first), about `limit`
  // at most (all of a place that holds several). *next is where to go on, or -1 after the last row.
  // allocate(n, width) must give room for n rows of `width` floats, D, or with_state D + S, and
  // their counts; where it returns null pointers, nothing is written; it must not call the table.
  // *rule is that of the state, empty without one. A part may be empty. Rows that come or go
  // between two calls may be missed or come twice, and with them, in storages that move rows (all
  // but slab and index), rows that stay.
  using Allocate = std::function<TableRows(int64_t n, int64_t width)>;
  virtual Status Export(bool with_state, int64_t cursor, int64_t limit, const Allocate& allocate,
                        std::string* rule, int64_t* next) = 0;

  // Replaces all rows by these. Their state is kept if it is that of `rule` and the table is bound
  // to that, otherwise it begins anew, as counts do where there are none.
  virtual Status Restore(const TableRows& rows, const std::string& rule, WorkerPool* pool) = 0;

  // Makes room for the rule's state in every row and sets it to `initial_state`. State of that rule
  // that was loaded into a table without an optimizer is kept, once; that of another is dropped,
  // and *dropped_rule names it, else it is empty. *token is the new binding's, never 0. If memory
  // runs out the table keeps all embeddings and has no binding.
  virtual Status Bind(const std::string& rule, std::vector<float> initial_state, WorkerPool* pool,
                      int64_t* token, std::string* dropped_rule = nullptr) = 0;

  // Writes all rows, of one moment: nothing changes the table until it returns.
  virtual Status Save(bool with_state, RowSink* sink, WorkerPool* pool) = 0;

  // Replaces all rows by those of the source, and the seed of the initial rows by its seed. On an
  // error, of the source too, nothing has changed. Their state is kept if the table is bound to its
  // rule, or to none: then it waits for an optimizer of that rule. Of the counts, those are kept
  // that both have.
  virtual Status Load(RowSource* source, WorkerPool* pool, LoadReport* report) = 0;

  // Incremental saves. A log knows what has changed since the last confirmed save of it
  // (change_log.h); a table may have several, which know nothing of each other. They have numbers
  // from 1 on. A closed log is no error to close again.
  virtual int64_t OpenLog() = 0;
  virtual void CloseLog(int64_t log) = 0;

  // *everything: the next save must be whole. Otherwise *keys is how many rows an increment would
  // have, or a few more.
  virtual Status Changes(int64_t log, bool* everything, int64_t* keys) = 0;

  // Writes all rows, or with `increment` those that have changed since the last confirmed save of
  // the log, of one moment. `save` names this one. Until it is confirmed, the next save of the log
  // has what this one had.
  virtual Status SaveInChain(int64_t log, const std::string& save, bool increment, RowSink* sink,
                             WorkerPool* pool) = 0;
  virtual Status ConfirmSave(int64_t log) = 0;

  // As Load, of whole tables and the increments that followed them, in their order. Only the keys
  // of `share` are kept, and chains that have none of them are not read. If rows are then as they
  // were saved by this one, they are for `log` (0: none) as after a confirmed save. Counts go on
  // from the step of the chain that had the most updates.
  virtual Status LoadChains(const Chains& chains, const Share& share, int64_t log, WorkerPool* pool,
                            LoadReport* report) = 0;

  // Reads all that LoadChains would read. *whole is how many sources of each chain are whole, from
  // the first on, and *problem what the matter is with the next of one. An error, if the table
  // could not take them though they were whole.
  Status CheckChains(const Chains& chains, const Share& share, int64_t* whole,
                     Status* problem) const;

  // The error that Load would return for what the source begins with, before it reads any row.
  Status CheckSource(RowSource* source, LoadReport* report) const;

  // An error for the first key outside [0, input_dim).
  Status CheckKeys(const int64_t* keys, int64_t n) const;

 protected:
  // An error unless an update by `rule` with `token` may touch rows under this binding.
  Status CheckBinding(const Binding& binding, const RuleCall& rule, int64_t token) const;

  // An error if a table of `size` rows cannot take `count` more.
  Status CheckMaxRows(int64_t size, int64_t count) const;

  // What a table under this binding is saved with.
  TableMeta Describe(const Binding& binding, int64_t rows, int64_t updates) const;

  // An error unless a table under this binding can become what report->meta describes, which
  // `source` holds. *out is the binding it has then; sets the rest of the report.
  Status CheckLoad(const Binding& binding, const std::string& source, Binding* out,
                   LoadReport* report) const;

  // An error if the table can never hold so many rows.
  Status CheckRows(int64_t rows, const std::string& source) const;

  // Begins with the first source of each chain that has keys of the share, and returns these chains
  // and about how many rows they have of it. report->meta describes all together.
  Status BeginChains(const Chains& chains, const Share& share, Chains* out, int64_t* rows,
                     LoadReport* report) const;

  // An error unless what is described is a part of a table of which `whole` is another: an
  // increment that follows it, or what another server had.
  static Status CheckPart(const TableMeta& whole, const TableMeta& part, bool increment,
                          const std::string& source);

  void SetSeed(int64_t seed) { options_.initial_row.SetSeed(seed); }

 private:
  TableOptions options_;
};

// `storage` is unordered_map, open_addressing, chained, slab, or index, which needs an input_dim.
Status MakeTable(TableOptions options, std::unique_ptr<Table>* out);

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_TABLE_H_
