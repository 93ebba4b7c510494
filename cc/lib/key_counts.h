// What a table counts for each key, in its row: [last: int64 | counts: K doubles], where `last` is
// the step of the last count. With n_t what is counted in step t, the counts at step T are
//
//   sum_t n_t decay^(T - t)
//
// A row is decayed when it is counted or read. Doubles, because a float stops counting at 2^24.
#ifndef TF_SPARSE_EMB_CC_LIB_KEY_COUNTS_H_
#define TF_SPARSE_EMB_CC_LIB_KEY_COUNTS_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace sparse_emb {

struct KeyCounts {
  int64_t width = 0;  // K; 0: nothing is counted
  double decay = 1.0;

  // How many floats of a row they take.
  int64_t floats() const { return width == 0 ? 0 : 2 * (1 + width); }

  // `at` is where the counts of a row begin, `step` is now.
  void Set(float* at, int64_t step, const double* counts) const {
    if (width == 0) return;
    std::memcpy(at, &step, sizeof(step));
    std::memcpy(at + 2, counts, width * sizeof(double));
  }
  void SetZero(float* at, int64_t step) const {
    if (width == 0) return;
    std::memcpy(at, &step, sizeof(step));
    std::fill(at + 2, at + floats(), 0.0f);
  }
  void Add(float* at, int64_t step, const double* amounts) const {
    if (width == 0) return;
    const double factor = FactorOf(at, step);
    std::memcpy(at, &step, sizeof(step));
    for (int64_t k = 0; k < width; ++k) {
      const double count = factor * CountAt(at, k) + amounts[k];
      std::memcpy(at + 2 + 2 * k, &count, sizeof(count));
    }
  }
  void Get(const float* at, int64_t step, double* counts) const {
    if (width == 0) return;
    const double factor = FactorOf(at, step);
    for (int64_t k = 0; k < width; ++k) counts[k] = factor * CountAt(at, k);
  }

  // `last` of a row.
  static int64_t LastStep(const float* at) {
    int64_t last;
    std::memcpy(&last, at, sizeof(last));
    return last;
  }

 private:
  double FactorOf(const float* at, int64_t step) const {
    if (decay == 1.0) return 1.0;
    // The last step may be anything in a row that was loaded: a difference of integers could
    // overflow.
    return std::pow(decay, static_cast<double>(step) - static_cast<double>(LastStep(at)));
  }
  static double CountAt(const float* at, int64_t k) {
    double count;
    std::memcpy(&count, at + 2 + 2 * k, sizeof(count));
    return count;
  }
};

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_KEY_COUNTS_H_
