#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <type_traits>
#include <vector>

#include "cc/lib/grad_reduce.h"
#include "cc/lib/vector_ops.h"

namespace sparse_emb {
namespace {

// Where each unique key occurs, in order of n: a counting sort of `inverse`. With it a sum is made
// in registers, by any thread, and written once. (It does not pay for the gather, whose gradients
// are too many for the cache: they are read in order.)
template <class Index>  // of keys and of values
class Places {
 public:
  Places(const int32_t* inverse, const Bags& bags, int64_t num_unique)
      : size_(bags.splits[bags.count]),
        ends_(num_unique),
        values_(new Index[size_]),
        weights_(bags.weights == nullptr ? nullptr : new float[size_]) {
    for (int64_t i = 0; i < size_; ++i) ++ends_[inverse[i]];
    Index begin = 0;
    for (Index& end : ends_) {
      const Index count = end;
      end = begin;  // and moves on as places are filled
      begin += count;
    }
    for (int64_t b = 0; b < bags.count; ++b) {
      const Index value = static_cast<Index>(bags.offset(b, 1));
      for (int64_t i = bags.splits[b]; i < bags.splits[b + 1]; ++i) {
        const int64_t place = ends_[inverse[i]]++;
        values_[place] = value;
        if (weights_ != nullptr) weights_[place] = bags.weights[i];
      }
    }
  }

  int64_t size() const { return size_; }
  // Key u has the places [begin(u), end(u)).
  int64_t begin(int64_t u) const { return u == 0 ? 0 : ends_[u - 1]; }
  int64_t end(int64_t u) const { return ends_[u]; }
  // The first key that begins at this place or later.
  int64_t KeyFrom(int64_t place) const {
    if (place == 0) return 0;
    const auto before = std::lower_bound(ends_.begin(), ends_.end(), place);
    return before - ends_.begin() + 1;
  }

  // Which of the values, D floats each, the place's bag has.
  int64_t value(int64_t place) const { return values_[place]; }
  float weight(int64_t place) const { return weights_ == nullptr ? 1.0f : weights_[place]; }

 private:
  const int64_t size_;
  std::vector<Index> ends_;
  // Every place is filled, so no zeros stand there before.
  const std::unique_ptr<Index[]> values_;
  const std::unique_ptr<float[]> weights_;
};

template <class Index>
void Reduce(const float* grad, const int32_t* inverse, const Bags& bags, int64_t num_unique,
            int64_t dim, float* out, WorkerPool* pool) {
  constexpr int64_t kAhead = 16;
  const Places<Index> places(inverse, bags, num_unique);
  std::vector<float> scales(bags.count);
  for (int64_t b = 0; b < bags.count; ++b) scales[bags.offset(b, 1)] = bags.scale(b);

  // Cut by places: the first keys are the frequent ones.
  pool->ParallelFor(places.size(), 2 + dim / 4, [&](int64_t begin, int64_t end) {
    const int64_t first = places.KeyFrom(begin);
    const int64_t last = end == places.size() ? num_unique : places.KeyFrom(end);
    RunOnBestIsa(dim, [&](auto width) SPARSE_EMB_INLINE_LAMBDA {
      constexpr bool in_registers = !std::is_same_v<decltype(width), int64_t>;
      for (int64_t u = first; u < last; ++u) {
        float registers[kWidestConstant];
        float* const row = out + u * width;
        float* const sum = in_registers ? registers : row;
        for (int64_t d = 0; d < width; ++d) sum[d] = 0.0f;
        for (int64_t place = places.begin(u); place < places.end(u); ++place) {
          if (place + kAhead < places.size()) {
            PrefetchBytes(grad + places.value(place + kAhead) * width, width * sizeof(float));
          }
          const int64_t value = places.value(place);
          AddScaled(places.weight(place) * scales[value], grad + value * width, sum, width);
        }
        if (in_registers) Copy(sum, row, width);
      }
    });
  });
}

}  // namespace

void ReducePooledGrads(const float* grad, const int32_t* inverse, const Bags& bags,
                       int64_t num_unique, int64_t dim, float* out, WorkerPool* pool) {
  if (bags.splits[bags.count] == 0) {
    std::fill_n(out, num_unique * dim, 0.0f);
  } else if (std::max(bags.count, bags.splits[bags.count]) <= std::numeric_limits<int32_t>::max()) {
    Reduce<int32_t>(grad, inverse, bags, num_unique, dim, out, pool);
  } else {
    Reduce<int64_t>(grad, inverse, bags, num_unique, dim, out, pool);
  }
}

}  // namespace sparse_emb
