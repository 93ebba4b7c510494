// The content of a table on its way to or from a file: what Table::Save writes and Table::Load
// reads, a part at a time, so that neither needs memory in proportion to the table.
#ifndef TF_SPARSE_EMB_CC_LIB_TABLE_STREAM_H_
#define TF_SPARSE_EMB_CC_LIB_TABLE_STREAM_H_

#include <cstdint>
#include <string>
#include <vector>

#include "cc/lib/in_turn.h"
#include "cc/lib/status.h"

namespace sparse_emb {

// What there is to know of a table beside its rows.
struct TableMeta {
  std::string name;
  std::string storage;
  int64_t dim = 0;
  int64_t input_dim = -1;
  std::string initializer;  // and its arguments, as InitialRow::Make takes them
  float initializer_a = 0;
  float initializer_b = 0;
  int64_t seed = 0;
  bool has_padding = false;
  int64_t padding_key = 0;
  int64_t num_counts = 0;
  double count_decay = 1;
  std::string rule;                  // that the state is of; empty: there is none
  std::vector<float> initial_state;  // S floats
  int64_t updates = 0;               // the step of the counts
  int64_t rows = 0;                  // V

  // Of a save that is one of a chain, a full one and the increments that follow it. They are not
  // in Encode; table_file.h has them in a block of their own.
  std::string save;        // names the save; empty: it is in no chain
  bool increment = false;  // the rows that have changed since the save before, and the keys removed

  int64_t state_width() const { return static_cast<int64_t>(initial_state.size()); }
  // The floats of a row as they lie in the table: [embedding: D | counts | state: S], the counts as
  // key_counts.h has them.
  int64_t count_floats() const { return num_counts == 0 ? 0 : 2 * (1 + num_counts); }
  int64_t row_floats() const { return dim + count_floats() + state_width(); }

  // A string of bytes, and back. `where` names the source in errors.
  std::string Encode() const;
  static Status Decode(const std::string& bytes, const std::string& where, TableMeta* out);

  // For people and for Python.
  std::string Json() const;
};

// A part of the rows: keys [n], and rows [n, row_floats]; of an increment also keys that were
// removed.
struct RowChunk {
  std::vector<int64_t> keys;
  std::vector<float> rows;
  std::vector<int64_t> removed;
  int64_t n() const { return static_cast<int64_t>(keys.size()); }
  bool empty() const { return keys.empty() && removed.empty(); }
};

// How many bytes of keys and rows make a chunk, roughly; a row of more is a chunk of its own.
inline constexpr int64_t kChunkBytes = 4 << 20;

// Where the rows go. Calls come in this order; after one that fails comes no other.
class RowSink {
 public:
  virtual ~RowSink() = default;
  // meta.rows is the number of rows that will come.
  virtual Status Begin(const TableMeta& meta) = 0;
  // Several threads may call it at once, each with a chunk of its own: what concerns the chunk
  // alone is done before turn.Wait(), what must be done in the order of the chunks between that and
  // the return. An error of Wait is that of a chunk before, and to be returned.
  virtual Status Write(const RowChunk& chunk, const Turn& turn) = 0;
  virtual Status End() = 0;
};

// Where rows come from.
class RowSource {
 public:
  virtual ~RowSource() = default;
  // For error messages.
  virtual std::string name() const = 0;
  virtual Status Begin(TableMeta* meta) = 0;
  // The next chunk; an empty one after the last, when all has been found to be whole: that there
  // were meta.rows rows, and that the checksums agree.
  virtual Status Read(RowChunk* chunk) = 0;
};

// A table as it was saved by S servers, each its share, or whole (S = 1): of each server a whole
// file and the increments that followed it, as many as of the others.
using Chains = std::vector<std::vector<RowSource*>>;

// What came of a load.
struct LoadReport {
  TableMeta meta;              // of what was read, of all chains together
  std::string rule;            // that the table was bound to
  bool kept_state = false;     // whether the rows have the state that came with them
  bool other_initial = false;  // whether the table's own initializer is another; it stays
  std::string Json() const;
};

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_TABLE_STREAM_H_
