// A bound on the norm of rows: a row with ||w||_p > limit is scaled by limit / (||w||_p + 1e-7), as
// in torch.nn.Embedding's max_norm and norm_type.
#ifndef TF_SPARSE_EMB_CC_LIB_MAX_NORM_H_
#define TF_SPARSE_EMB_CC_LIB_MAX_NORM_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "cc/lib/vector_ops.h"

namespace sparse_emb {

struct MaxNorm {
  float limit = 0.0f;  // 0: no bound
  float p = 2.0f;      // > 0, or infinity

  bool enabled() const { return limit > 0.0f; }

  // What to multiply the row by: 1 where it is within the bound.
  float ScaleOf(const float* row, int64_t dim) const {
    const float norm = NormOf(row, dim);
    if (norm >= 1e-15f && norm <= std::numeric_limits<float>::max()) {
      return norm > limit ? limit / (norm + 1e-7f) : 1.0f;
    }
    // A float holds neither the greatest norms and squares nor the least squares.
    const double wide = WideNormOf(row, dim);
    return wide > limit ? static_cast<float>(limit / (wide + 1e-7)) : 1.0f;
  }

 private:
  float NormOf(const float* row, int64_t dim) const {
    if (p == 2.0f) return std::sqrt(Dot(row, row, dim));
    float greatest = 0.0f;
    for (int64_t d = 0; d < dim; ++d) greatest = std::max(greatest, std::abs(row[d]));
    if (std::isinf(p) || greatest == 0.0f) return greatest;
    float sum = 0.0f;
    if (p == 1.0f) {
      for (int64_t d = 0; d < dim; ++d) sum += std::abs(row[d]);
      return sum;
    }
    // Of the elements over the greatest, whose powers do not all vanish.
    for (int64_t d = 0; d < dim; ++d) sum += std::pow(std::abs(row[d]) / greatest, p);
    return greatest * std::pow(sum, 1.0f / p);
  }

  double WideNormOf(const float* row, int64_t dim) const {
    double greatest = 0.0, sum = 0.0;
    for (int64_t d = 0; d < dim; ++d) greatest = std::max<double>(greatest, std::abs(row[d]));
    if (std::isinf(p) || greatest == 0.0 || std::isinf(greatest)) return greatest;
    for (int64_t d = 0; d < dim; ++d) sum += std::pow(std::abs(row[d]) / greatest, p);
    return greatest * std::pow(sum, 1.0 / p);
  }
};

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_MAX_NORM_H_
