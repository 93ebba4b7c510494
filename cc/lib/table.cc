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
