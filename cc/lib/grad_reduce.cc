#include "cc/lib/grad_reduce.h"

#include <algorithm>
#include <numeric>

#include "cc/lib/vector_ops.h"

namespace sparse_emb {
namespace {

// What one thread sums: columns [column, column + width) of the rows that `owner` of `owners` has.
// So each sum has one thread, which takes the gradients in order.
//
// Columns are split first, at 128 bytes: every thread walks all keys, and no two write the same
// line, nor two of a pair that the processor fetches together (at 64 bytes two threads measured
// slower than one). Where rows are narrower than that, they are dealt out, in blocks of 16 and like
// cards: that spreads the hot keys, which have the low numbers. Two owners of rows measured slower
// than one, because each asks for every other gradient and those in between are fetched as well.
struct Share {
  int64_t column, width;
  int64_t owner, owners;  // owners is a power of two, so that ownership is a mask
};

constexpr int64_t kColumnFloats = 32;
constexpr int64_t kBlockRows = 16;
constexpr int64_t kMinOwners = 4;
constexpr int64_t kMinElements = 1 << 14;  // less is for one thread

// Calls fn(share) for shares that make up the whole.
template <class Fn>
void ForEachShare(int64_t n, int64_t num_unique, int64_t dim, WorkerPool* pool, const Fn& fn) {
  if (dim == 0) return;  // nothing to share
  const int64_t threads = n * dim < kMinElements ? 1 : pool->num_threads();
  const int64_t parts = dim % kColumnFloats == 0 ? dim / kColumnFloats : 1;
  const int64_t columns = std::min(threads, parts);
  const int64_t blocks = (num_unique + kBlockRows - 1) / kBlockRows;
  const int64_t most = std::min(threads / columns, blocks);
  int64_t owners = 1;
  while (most >= kMinOwners && owners * 2 <= most) owners *= 2;
  const int64_t shares = columns * owners;
  pool->ParallelFor(shares, n * (2 + dim / 4) / shares, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t c = i / owners;
      const int64_t first = columns == 1 ? 0 : parts * c / columns * kColumnFloats;
      const int64_t last = columns == 1 ? dim : parts * (c + 1) / columns * kColumnFloats;
      fn(Share{first, last - first, i % owners, owners});
    }
  });
}

// Features and the sums that they, and no others, add to: [first_sum, end_sum).
struct FeatureGroup {
  std::vector<int64_t> features;  // ascending
  int64_t first_sum, end_sum;
};

// Parts features into groups that share no sum, as those of different tables do; the sums of the
// groups, ascending, make up [0, num_unique). The keys of feature f are inverse[starts[f] ..
// starts[f + 1]).
std::vector<FeatureGroup> GroupFeatures(const int32_t* inverse, const std::vector<int64_t>& starts,
                                        int64_t num_unique) {
  struct Range {
    int64_t feature;
    int32_t least, greatest;
  };
  std::vector<Range> ranges;
  for (size_t f = 0; f + 1 < starts.size(); ++f) {
    if (starts[f] == starts[f + 1]) continue;
    int32_t least = inverse[starts[f]], greatest = least;
    for (int64_t i = starts[f]; i < starts[f + 1]; ++i) {
      least = std::min(least, inverse[i]);
      greatest = std::max(greatest, inverse[i]);
    }
    ranges.push_back({static_cast<int64_t>(f), least, greatest});
  }
  std::sort(ranges.begin(), ranges.end(),
            [](const Range& a, const Range& b) { return a.least < b.least; });
  std::vector<FeatureGroup> groups = {{{}, 0, 0}};
  for (const Range& range : ranges) {
    if (range.least >= groups.back().end_sum && !groups.back().features.empty()) {
      groups.push_back({{}, groups.back().end_sum, 0});
    }
    groups.back().features.push_back(range.feature);
    groups.back().end_sum = std::max<int64_t>(groups.back().end_sum, range.greatest + 1);
  }
  groups.back().end_sum = num_unique;
  for (FeatureGroup& group : groups) std::sort(group.features.begin(), group.features.end());
  return groups;
}

// Calls fn(share, group) for shares of groups that make up the whole: groups are dealt out where
// there are several, and otherwise the sums of the one.
template <class Fn>
void ForEachGroup(const int32_t* inverse, const std::vector<int64_t>& starts, int64_t num_unique,
                  int64_t dim, WorkerPool* pool, const Fn& fn) {
  const int64_t num_features = static_cast<int64_t>(starts.size()) - 1;
  const int64_t n = starts.back();
  if (num_features > 1 && pool->num_threads() > 1 && n * dim >= kMinElements) {
    const std::vector<FeatureGroup> groups = GroupFeatures(inverse, starts, num_unique);
    const int64_t num_groups = static_cast<int64_t>(groups.size());
    if (num_groups > 1) {
      // Like cards too: large tables often stand side by side.
      const int64_t hands = std::min<int64_t>(num_groups, pool->num_threads());
      pool->ParallelFor(hands, n * (2 + dim / 4) / hands, [&](int64_t begin, int64_t end) {
        for (int64_t hand = begin; hand < end; ++hand) {
          for (int64_t g = hand; g < num_groups; g += hands) fn(Share{0, dim, 0, 1}, groups[g]);
        }
      });
      return;
    }
  }
  FeatureGroup all = {std::vector<int64_t>(num_features), 0, num_unique};
  std::iota(all.features.begin(), all.features.end(), 0);
  ForEachShare(n, num_unique, dim, pool, [&](const Share& share) { fn(share, all); });
}

// The rows of sums, out [U, D], of one share of a group. They become zeros a block at a time,
// shortly before the first gradient of the block is added, so that they are in the cache by then.
class Sums {
 public:
  Sums(const Share& share, const FeatureGroup& group, int64_t dim, float* out)
      : share_(share),
        first_(group.first_sum),
        num_unique_(group.end_sum - first_),
        dim_(dim),
        out_(out + first_ * dim + share.column),
        next_block_(share.owner) {}

  SPARSE_EMB_INLINE float* Row(int64_t sum) {
    const int64_t u = sum - first_;
    if (u >= next_block_ * kBlockRows) ZeroThrough(u);
    return out_ + u * dim_;
  }

  template <class Width>
  SPARSE_EMB_INLINE void Prefetch(int64_t sum, Width width) const {
    PrefetchBytes(out_ + (sum - first_) * dim_, width * sizeof(float));
  }

  // Makes the rows that no gradient went to zeros.
  void Finish() {
    if (num_unique_ > 0) ZeroThrough(num_unique_ - 1);
  }

 private:
  void ZeroThrough(int64_t u) {
    for (; next_block_ * kBlockRows <= u; next_block_ += share_.owners) {
      const int64_t end = std::min(num_unique_, (next_block_ + 1) * kBlockRows);
      for (int64_t row = next_block_ * kBlockRows; row < end; ++row) {
        std::fill_n(out_ + row * dim_, share_.width, 0.0f);
      }
    }
  }

  const Share share_;
  const int64_t first_, num_unique_, dim_;
  float* const out_;
  int64_t next_block_;  // the first of the owner's blocks that are not zeros yet
};

// Calls add(i) for those i in [begin, end), ascending, whose row inverse[i] is of the share, and a
// little earlier prefetch(i). Which rows are owned is as good as random, so they are picked out
// without a branch first.
template <class Prefetch, class Add>
SPARSE_EMB_INLINE void ForEachOwned(const Share& share, const int32_t* inverse, int64_t begin,
                                    int64_t end, const Prefetch& prefetch, const Add& add) {
  constexpr int64_t kAhead = 24;
  if (share.owners == 1) {
    for (int64_t i = begin; i < end; ++i) {
      if (i + kAhead < end) prefetch(i + kAhead);
      add(i);
    }
    return;
  }
  constexpr int64_t kPart = 512;
  int64_t owned[kPart];
  for (int64_t part = begin; part < end; part += kPart) {
    const int64_t stop = std::min(end, part + kPart);
    int64_t count = 0;
    for (int64_t i = part; i < stop; ++i) {
      owned[count] = i;
      count += ((inverse[i] / kBlockRows) & (share.owners - 1)) == share.owner;
    }
    for (int64_t j = 0; j < count; ++j) {
      if (j + kAhead < count) prefetch(owned[j + kAhead]);
      add(owned[j]);
    }
  }
}

}  // namespace

void ReduceGrads(const float* grad, const int32_t* inverse, int64_t n, int64_t num_unique,
                 int64_t dim, int64_t num_features, float* out, WorkerPool* pool) {
  const int64_t rows = n / num_features, stride = num_features * dim;
  std::vector<int64_t> starts(num_features + 1);
  for (int64_t f = 0; f <= num_features; ++f) starts[f] = f * rows;
  const auto reduce = [&](const Share& share, const FeatureGroup& group) {
    Sums sums(share, group, dim, out);
    RunOnBestIsa(share.width, [&](auto width) SPARSE_EMB_INLINE_LAMBDA {
      for (int64_t f : group.features) {
        const float* const of_feature = grad + f * dim + share.column;
        const int32_t* const indices = inverse + starts[f];
        ForEachOwned(
            share, indices, 0, rows,
            [&](int64_t r) SPARSE_EMB_INLINE_LAMBDA {
              PrefetchBytes(of_feature + r * stride, width * sizeof(float));
              sums.Prefetch(indices[r], width);
            },
            [&](int64_t r) SPARSE_EMB_INLINE_LAMBDA {
              Add(of_feature + r * stride, sums.Row(indices[r]), width);
            });
      }
    });
    sums.Finish();
  };
  ForEachGroup(inverse, starts, num_unique, dim, pool, reduce);
}

void ReduceGradsByTable(const std::vector<const float*>& grads, const int64_t* splits,
                        const int32_t* inverse, const int64_t* unique_splits, int64_t dim,
                        float* out, WorkerPool* pool) {
  const int64_t num_tables = static_cast<int64_t>(grads.size());
  if (num_tables == 1) {
    return ReduceGrads(grads[0], inverse, splits[1], unique_splits[1], dim, 1, out, pool);
  }
  const int64_t cost = splits[num_tables] / num_tables * (2 + dim / 4);
  pool->ParallelFor(num_tables, cost, [&](int64_t begin, int64_t end) {
    SerialPool serial;
    std::vector<int32_t> table_inverse;
    for (int64_t t = begin; t < end; ++t) {
      const int64_t first = unique_splits[t];
      const int64_t num_unique = unique_splits[t + 1] - first;
      const int64_t n = splits[t + 1] - splits[t];
      if (num_unique == n) {  // no key comes twice, so each gradient is its own sum
        std::copy(grads[t], grads[t] + n * dim, out + first * dim);
        continue;
      }
      table_inverse.assign(inverse + splits[t], inverse + splits[t + 1]);
      for (int32_t& u : table_inverse) u -= static_cast<int32_t>(first);
      ReduceGrads(grads[t], table_inverse.data(), n, num_unique, dim, 1, out + first * dim,
                  &serial);
    }
  });
}

}  // namespace sparse_emb
