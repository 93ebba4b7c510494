#include "cc/lib/table.h"

#include <algorithm>

#include "cc/lib/chained_store.h"
#include "cc/lib/index_store.h"
#include "cc/lib/key_range.h"
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

// What the server had that saved a chain.
Share ShareOfChain(const Chains& chains, int64_t c) {
  return {c, static_cast<int64_t>(chains.size())};
}

}  // namespace

Status Table::CheckKeys(const int64_t* keys, int64_t n) const {
  const int64_t input_dim = options_.input_dim;
  if (input_dim < 0) return {};
  const int64_t i = FirstOutOfRange(keys, n, input_dim, [](int64_t) { return false; });
  if (i < 0) return {};
  return Error(Code::kInvalidArgument, "keys must be in [0, ", input_dim, "), got keys[", i,
               "] = ", keys[i], " (table '", options_.name, "')");
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
  SPARSE_EMB_RETURN_IF_ERROR(CheckRows(report->meta.rows, source->name()));
  Binding binding;
  return CheckLoad({}, source->name(), &binding, report);
}

Status Table::CheckChains(const Chains& chains, const Share& share, int64_t* whole,
                          Status* problem) const {
  LoadReport report;
  std::string name;  // of the first that is read
  int64_t rows = 0;
  *whole = chains[0].size();
  for (size_t c = 0; c < chains.size(); ++c) {
    if (share.PartOf(ShareOfChain(chains, c)) == 0.0) continue;
    // What follows the damage in another chain is of no use.
    for (int64_t i = 0; i < *whole; ++i) {
      RowSource* const source = chains[c][i];
      TableMeta meta;
      Status status = source->Begin(&meta);
      if (status.ok() && name.empty()) {
        name = source->name();
        report.meta = meta;
        Binding binding;
        SPARSE_EMB_RETURN_IF_ERROR(CheckLoad({}, name, &binding, &report));
      } else if (status.ok()) {
        status = CheckPart(report.meta, meta, i > 0, source->name());
      }
      RowChunk chunk;
      do {
        if (status.ok()) status = source->Read(&chunk);
        if (!status.ok()) break;
        for (const std::vector<int64_t>* keys : {&chunk.keys, &chunk.removed}) {
          Status in_range = CheckKeys(keys->data(), keys->size());
          if (!in_range.ok()) in_range.message += " (in " + source->name() + ")";
          SPARSE_EMB_RETURN_IF_ERROR(in_range);
        }
        if (i > 0) continue;
        for (const int64_t key : chunk.keys) rows += share.Has(key);
      } while (!chunk.empty());
      if (status.ok()) continue;
      *problem = status;
      *whole = i;
    }
  }
  return *whole == 0 ? Status() : CheckRows(rows, name);
}

Status Table::BeginChains(const Chains& chains, const Share& share, Chains* out, int64_t* rows,
                          LoadReport* report) const {
  out->clear();
  double own_rows = 0.0;
  for (size_t c = 0; c < chains.size(); ++c) {
    const double part = share.PartOf(ShareOfChain(chains, c));
    if (part == 0.0) continue;
    RowSource* const source = chains[c][0];
    TableMeta meta;
    SPARSE_EMB_RETURN_IF_ERROR(source->Begin(&meta));
    own_rows += part * meta.rows;
    if (out->empty()) {
      report->meta = meta;
    } else {
      SPARSE_EMB_RETURN_IF_ERROR(
          CheckPart(report->meta, meta, /*increment=*/false, source->name()));
      report->meta.rows += meta.rows;
      report->meta.updates = std::max(report->meta.updates, meta.updates);
    }
    out->push_back(chains[c]);
  }
  *rows = static_cast<int64_t>(own_rows);
  return share.num_servers > 1 ? Status() : CheckRows(report->meta.rows, (*out)[0][0]->name());
}

Status Table::CheckPart(const TableMeta& whole, const TableMeta& part, bool increment,
                        const std::string& source) {
  if (part.increment == increment && part.dim == whole.dim && part.rule == whole.rule &&
      part.num_counts == whole.num_counts && part.seed == whole.seed &&
      part.initial_state == whole.initial_state) {
    return {};
  }
  return Error(Code::kDataLoss, source,
               increment ? " is no increment of the table that it follows"
                         : " is no part of the table that the files beside it hold");
}

Status Table::CheckRows(int64_t rows, const std::string& source) const {
  const int64_t max_rows = options_.max_rows;
  if (max_rows < 0 || rows <= max_rows) return {};
  return Error(Code::kResourceExhausted, "table '", options_.name, "' has max_rows = ", max_rows,
               " and cannot take the ", rows, " rows of ", source);
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
  // So that the bytes of a row, with its state and its counts, can be counted.
  constexpr int64_t kMaxDim = int64_t{1} << 46, kMaxCounts = 1 << 20;
  if (options.dim > kMaxDim) {
    return Error(Code::kInvalidArgument, "dim must be at most 2^46, got ", options.dim);
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
  if (key_counts.width > kMaxCounts) {
    return Error(Code::kInvalidArgument, "num_counts must be at most 2^20, got ", key_counts.width);
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
