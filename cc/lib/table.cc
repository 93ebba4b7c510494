#include "cc/lib/table.h"

#include <algorithm>

#include "cc/lib/chained_store.h"
#include "cc/lib/index_store.h"
#include "cc/lib/open_addressing_store.h"
#include "cc/lib/sharded_table.h"
#include "cc/lib/slab_store.h"
#include "cc/lib/unordered_map_store.h"

namespace sparse_emb {
namespace {

using Factory = std::unique_ptr<Table> (*)(TableOptions);

template <class Store>
std::unique_ptr<Table> Make(TableOptions options) {
  return std::make_unique<ShardedTable<Store>>(std::move(options));
}

struct Storage {
  const char* name;
  Factory make;
};

constexpr Storage kStorages[] = {
    {"unordered_map", &Make<UnorderedMapStore>},
    {"open_addressing", &Make<OpenAddressingStore>},
    {"chained", &Make<ChainedStore>},
    {"slab", &Make<SlabStore>},
    {"index", &Make<IndexStore>},
};

}  // namespace

Status Table::CheckKeys(const int64_t* keys, int64_t n) const {
  const int64_t input_dim = options_.input_dim;
  if (input_dim < 0) return {};
  for (int64_t i = 0; i < n; ++i) {
    if (keys[i] >= 0 && keys[i] < input_dim) continue;
    return Error(Code::kInvalidArgument, "keys must be in [0, ", input_dim, "), got keys[", i,
                 "] = ", keys[i], " (table '", options_.name, "')");
  }
  return {};
}

Status Table::CheckBinding(const Binding& binding, const RuleCall& rule, int64_t token) const {
  if (binding.rule.empty()) {
    return Error(Code::kFailedPrecondition, "table '", options_.name,
                 "' is bound to no optimizer; bind it to rule ", rule.rule, " first");
  }
  if (binding.rule != rule.rule) {
    return Error(Code::kFailedPrecondition, "table '", options_.name, "' is bound to rule ",
                 binding.rule, ", got an update by rule ", rule.rule);
  }
  if (token != 0 && token != binding.token) {
    return Error(Code::kFailedPrecondition, "table '", options_.name,
                 "' has since been bound to another optimizer (rule ", binding.rule,
                 "); the optimizer of this update is no longer its own");
  }
  return {};
}

Status Table::CheckMaxRows(int64_t size, int64_t count) const {
  const int64_t max_rows = options_.max_rows;
  if (max_rows < 0 || count == 0 || size + count <= max_rows) return {};
  return Error(Code::kResourceExhausted, "table '", options_.name, "' has ", size,
               " of max_rows = ", max_rows, " rows and cannot take ", count, " more");
}

TableMeta Table::Describe(const Binding& binding, int64_t rows, int64_t updates) const {
  TableMeta meta;
  meta.name = options_.name;
  meta.storage = options_.storage;
  meta.dim = options_.dim;
  meta.input_dim = options_.input_dim;
  meta.initializer = options_.initial_row.kind();
  meta.initializer_a = options_.initial_row.a();
  meta.initializer_b = options_.initial_row.b();
  meta.seed = options_.initial_row.seed();
  meta.has_padding = options_.padding_key.has_value();
  meta.padding_key = options_.padding_key.value_or(0);
  meta.num_counts = options_.key_counts.width;
  meta.count_decay = options_.key_counts.decay;
  meta.rule = binding.rule;
  meta.initial_state = binding.initial_state;
  meta.updates = updates;
  meta.rows = rows;
  return meta;
}

Status Table::CheckSource(RowSource* source, LoadReport* report) const {
  SPARSE_EMB_RETURN_IF_ERROR(source->Begin(&report->meta));
  Binding binding;
  return CheckLoad({}, source->name(), &binding, report);
}

Status Table::CheckChain(const std::vector<RowSource*>& sources, int64_t* whole,
                         Status* problem) const {
  LoadReport report;
  for (*whole = 0; *whole < static_cast<int64_t>(sources.size()); ++*whole) {
    RowSource* const source = sources[*whole];
    TableMeta meta;
    *problem = source->Begin(&meta);
    if (problem->ok() && *whole == 0) {
      report.meta = meta;
      Binding binding;
      SPARSE_EMB_RETURN_IF_ERROR(CheckLoad({}, source->name(), &binding, &report));
    } else if (problem->ok()) {
      *problem = CheckIncrement(report.meta, meta, source->name());
    }
    RowChunk chunk;
    do {
      if (problem->ok()) *problem = source->Read(&chunk);
      if (!problem->ok()) return {};
      for (const std::vector<int64_t>* keys : {&chunk.keys, &chunk.removed}) {
        Status status = CheckKeys(keys->data(), keys->size());
        if (!status.ok()) status.message += " (in " + source->name() + ")";
        SPARSE_EMB_RETURN_IF_ERROR(status);
      }
    } while (!chunk.empty());
  }
  return {};
}

Status Table::CheckIncrement(const TableMeta& whole, const TableMeta& increment,
                             const std::string& source) {
  if (increment.increment && increment.dim == whole.dim && increment.rule == whole.rule &&
      increment.num_counts == whole.num_counts && increment.seed == whole.seed &&
      increment.state_width() == whole.state_width()) {
    return {};
  }
  return Error(Code::kDataLoss, source, " is no increment of the table that it follows");
}

Status Table::CheckLoad(const Binding& binding, const std::string& source, Binding* out,
                        LoadReport* report) const {
  const TableMeta& meta = report->meta;
  if (meta.increment) {
    return Error(Code::kInvalidArgument, source,
                 " is an increment: it has only the rows that had changed, and is loaded with the "
                 "whole table that it follows");
  }
  if (meta.dim != options_.dim) {
    return Error(Code::kInvalidArgument, "table '", options_.name, "' has rows of width ",
                 options_.dim, ", but ", source, " holds rows of width ", meta.dim, " (of table '",
                 meta.name, "')");
  }
  const int64_t max_rows = options_.max_rows;
  if (max_rows >= 0 && meta.rows > max_rows) {
    return Error(Code::kResourceExhausted, "table '", options_.name, "' has max_rows = ", max_rows,
                 " and cannot take the ", meta.rows, " rows of ", source);
  }
  RuleInfo info;
  const bool known = !meta.rule.empty() && FindRule(meta.rule, &info).ok();
  if (known && info.state_width(meta.dim) != meta.state_width()) {
    return Error(Code::kInvalidArgument, source, " holds a state of ", meta.state_width(),
                 " values a row of rule ", meta.rule, ", which has ", info.state_width(meta.dim));
  }
  if (binding.token != 0) {
    *out = binding;
  } else {
    *out = known ? Binding{meta.rule, meta.initial_state, 0} : Binding{};
  }
  report->kept_state = known && meta.rule == out->rule;
  report->rule = out->rule;
  const InitialRow& initial = options_.initial_row;
  report->other_initial = meta.initializer != initial.kind() || meta.initializer_a != initial.a() ||
                          meta.initializer_b != initial.b();
  return {};
}

Status MakeTable(TableOptions options, std::unique_ptr<Table>* out) {
  if (options.dim <= 0) {
    return Error(Code::kInvalidArgument, "dim must be positive, got ", options.dim);
  }
  if (options.input_dim == 0 || options.input_dim < -1) {
    return Error(Code::kInvalidArgument, "input_dim must be positive, or -1 for any key, got ",
                 options.input_dim);
  }
  if (options.storage == "index" && options.input_dim < 0) {
    return Error(Code::kInvalidArgument, "storage index needs an input_dim");
  }
  const MaxNorm& max_norm = options.max_norm;
  if (!(max_norm.limit >= 0.0f)) {
    return Error(Code::kInvalidArgument, "max_norm must be positive, or 0 for none, got ",
                 max_norm.limit);
  }
  if (!(max_norm.p > 0.0f)) {
    return Error(Code::kInvalidArgument, "norm_type must be positive, got ", max_norm.p);
  }
  const KeyCounts& key_counts = options.key_counts;
  if (key_counts.width < 0) {
    return Error(Code::kInvalidArgument, "num_counts must not be negative, got ", key_counts.width);
  }
  if (!(key_counts.decay > 0.0 && key_counts.decay <= 1.0)) {
    return Error(Code::kInvalidArgument, "count_decay must be in (0, 1], got ", key_counts.decay);
  }
  std::string names;
  for (const Storage& storage : kStorages) {
    if (options.storage == storage.name) {
      *out = storage.make(std::move(options));
      return {};
    }
    names += (names.empty() ? "" : ", ") + std::string(storage.name);
  }
  return Error(Code::kInvalidArgument, "storage must be one of ", names, ", got '", options.storage,
               "'");
}

}  // namespace sparse_emb
