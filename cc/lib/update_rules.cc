#include "cc/lib/update_rules.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <iterator>
#include <limits>

namespace sparse_emb {
namespace {

// A list of rule types, for looking one up by its name.
template <class... Rules>
struct RuleList {};
using AllRules = RuleList<Sgd, Momentum, Adagrad, RowWiseAdagrad, AdagradDecay, LazyAdam<false>,
                          LazyAdam<true>, RowWiseAdam, Ftrl, RmsProp<false, false>,
                          RmsProp<false, true>, RmsProp<true, false>, RmsProp<true, true>>;

// Stands for a rule type as a function argument.
template <class Rule>
struct Type {
  using type = Rule;
};

// Calls fn(Type<Rule>()) for the rule of this name; false if there is none.
template <class Fn, class... Rules>
bool WithRule(const std::string& name, RuleList<Rules...>, const Fn& fn) {
  return ((name == Rules::kName && (fn(Type<Rules>()), true)) || ...);
}

template <class... Rules>
std::string JoinNames(RuleList<Rules...>) {
  std::string names;
  ((names += (names.empty() ? "" : ", ") + std::string(Rules::kName)), ...);
  return names;
}

template <class Rule>
void ApplyToRows(const Rule& rule, float* const* rows, const float* grads, int64_t begin,
                 int64_t end, int64_t dim, int64_t state_at) {
  constexpr int64_t kAhead = 16;
  const int64_t row_bytes =
      (state_at + Rule::StateWidth(dim)) * static_cast<int64_t>(sizeof(float));
  RunOnBestIsa(dim, [&](auto dim) SPARSE_EMB_INLINE_LAMBDA {
    for (int64_t i = begin; i < end; ++i) {
      if (i + kAhead < end && rows[i + kAhead] != nullptr) {
        PrefetchBytes(rows[i + kAhead], row_bytes);
      }
      if (rows[i] != nullptr) rule.Apply(rows[i], rows[i] + state_at, grads + i * dim, dim);
    }
  });
}

}  // namespace

Status FindRule(const std::string& name, RuleInfo* out) {
  const bool found = WithRule(name, AllRules(), [&](auto type) {
    using Rule = typename decltype(type)::type;
    *out = {Rule::kName, {std::begin(Rule::kHypers), std::end(Rule::kHypers)}, &Rule::StateWidth};
  });
  if (found) return {};
  return Error(Code::kInvalidArgument, "rule must be one of ", JoinNames(AllRules()), ", got '",
               name, "'");
}

Status CheckRule(const RuleCall& call) {
  RuleInfo info;
  SPARSE_EMB_RETURN_IF_ERROR(FindRule(call.rule, &info));
  if (call.hypers.size() != info.hypers.size()) {
    std::string names;
    for (const std::string& hyper : info.hypers) names += (names.empty() ? "" : ", ") + hyper;
    return Error(Code::kInvalidArgument, "hypers of rule ", info.name, " must be [", names,
                 "], got ", call.hypers.size(), " values");
  }
  for (size_t i = 0; i < call.hypers.size(); ++i) {
    if (std::isfinite(call.hypers[i])) continue;
    return Error(Code::kInvalidArgument, info.hypers[i], " of rule ", info.name,
                 " must be finite, got ", call.hypers[i]);
  }
  if (info.name == AdagradDecay::kName && call.hypers[1] < 1.0f) {
    return Error(Code::kInvalidArgument, "decay_step of rule ", info.name,
                 " must be at least 1, got ", call.hypers[1]);
  }
  if (call.step < 1) {
    return Error(Code::kInvalidArgument, "step must be at least 1, got ", call.step);
  }
  return {};
}

void ApplyRule(const RuleCall& call, float* const* rows, const float* grads, int64_t n, int64_t dim,
               int64_t state_at, WorkerPool* pool) {
  WithRule(call.rule, AllRules(), [&](auto type) {
    using Rule = typename decltype(type)::type;
    const Rule rule(call);
    pool->ParallelFor(n, 20 + dim, [&](int64_t begin, int64_t end) {
      ApplyToRows(rule, rows, grads, begin, end, dim, state_at);
    });
  });
}

int64_t FirstNonFinite(const float* values, int64_t n, WorkerPool* pool) {
  constexpr int64_t kBlock = 1024;
  constexpr uint32_t kExponent = 0x7f800000;
  const auto bits_of = [](float value) SPARSE_EMB_INLINE_LAMBDA {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    return bits;
  };
  std::atomic<int64_t> first{std::numeric_limits<int64_t>::max()};
  pool->ParallelFor((n + kBlock - 1) / kBlock, kBlock / 8, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t stop = std::min(n, (block + 1) * kBlock);
      bool bad = false;
      RunOnBestIsa([&]() SPARSE_EMB_INLINE_LAMBDA {
        uint32_t any = 0;
        for (int64_t i = block * kBlock; i < stop; ++i) {
          any |= (bits_of(values[i]) & kExponent) == kExponent;
        }
        bad = any != 0;
      });
      if (!bad) continue;
      for (int64_t i = block * kBlock; i < stop; ++i) {
        if (std::isfinite(values[i])) continue;
        int64_t known = first.load();
        while (i < known && !first.compare_exchange_weak(known, i)) {
        }
        break;
      }
      return;
    }
  });
  const int64_t found = first.load();
  return found == std::numeric_limits<int64_t>::max() ? -1 : found;
}

}  // namespace sparse_emb
