// The update rules: w the row's embedding [D], s its state [S], g its summed gradient [D].
//
// Each rule is a struct of one step's hyper-parameters with a pure function on a row. Rules stand
// beside each other here; to add one, see CONTRIBUTING.md. Weight decay is decoupled (Loshchilov
// and Hutter, "Decoupled weight decay regularization", 2019): it multiplies the embedding as it was
// before the step by 1 - lr wd.
#ifndef TF_SPARSE_EMB_CC_LIB_UPDATE_RULES_H_
#define TF_SPARSE_EMB_CC_LIB_UPDATE_RULES_H_

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "cc/lib/status.h"
#include "cc/lib/vector_ops.h"
#include "cc/lib/worker_pool.h"

namespace sparse_emb {

// One application of a rule: its name, its hyper-parameters in the order of the rule's kHypers,
// and the 1-based step t.
struct RuleCall {
  std::string rule;
  std::vector<float> hypers;
  int64_t step = 1;
};

//   w -= lr (g + wd w)
struct Sgd {
  static constexpr const char* kName = "sgd";
  static constexpr const char* kHypers[] = {"learning_rate", "weight_decay"};
  static int64_t StateWidth(int64_t) { return 0; }

  float lr, decay;
  explicit Sgd(const RuleCall& call) : lr(call.hypers[0]), decay(1.0f - lr * call.hypers[1]) {}

  SPARSE_EMB_INLINE void Apply(float* w, float*, const float* g, int64_t dim) const {
    for (int64_t d = 0; d < dim; ++d) w[d] = decay * w[d] - lr * g[d];
  }
};

// Row-wise Adagrad: one accumulator a row (FBGEMM's EXACT_ROWWISE_ADAGRAD).
//
//   a += mean_d(g^2)
//   w -= lr g / (sqrt(a) + eps) + lr wd w
struct RowWiseAdagrad {
  static constexpr const char* kName = "row_wise_adagrad";
  static constexpr const char* kHypers[] = {"learning_rate", "epsilon", "weight_decay"};
  static int64_t StateWidth(int64_t) { return 1; }

  float lr, eps, decay;
  explicit RowWiseAdagrad(const RuleCall& call)
      : lr(call.hypers[0]), eps(call.hypers[1]), decay(1.0f - lr * call.hypers[2]) {}

  SPARSE_EMB_INLINE void Apply(float* w, float* s, const float* g, int64_t dim) const {
    s[0] += Dot(g, g, dim) / static_cast<float>(dim);
    const float rate = lr / (std::sqrt(s[0]) + eps);
    for (int64_t d = 0; d < dim; ++d) w[d] = decay * w[d] - rate * g[d];
  }
};

// Row-wise Adam: the first moment per element, the second per row (FBGEMM's PARTIAL_ROWWISE_ADAM).
//
//   m = b1 m + (1 - b1) g
//   v = b2 v + (1 - b2) mean_d(g^2)
//   w -= lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps) + lr wd w
//
// State: [m: D | v: 1].
struct RowWiseAdam {
  static constexpr const char* kName = "row_wise_adam";
  static constexpr const char* kHypers[] = {"learning_rate", "beta_1", "beta_2", "epsilon",
                                            "weight_decay"};
  static int64_t StateWidth(int64_t dim) { return dim + 1; }

  float lr, b1, b2, eps, decay, m_correction, v_correction;
  explicit RowWiseAdam(const RuleCall& call)
      : lr(call.hypers[0]),
        b1(call.hypers[1]),
        b2(call.hypers[2]),
        eps(call.hypers[3]),
        decay(1.0f - lr * call.hypers[4]),
        m_correction(BiasCorrection(b1, call.step)),
        v_correction(BiasCorrection(b2, call.step)) {}

  SPARSE_EMB_INLINE void Apply(float* w, float* s, const float* g, int64_t dim) const {
    float* m = s;
    float& v = s[dim];
    v = b2 * v + (1.0f - b2) * (Dot(g, g, dim) / static_cast<float>(dim));
    const float rate = lr * m_correction / (std::sqrt(v * v_correction) + eps);
    for (int64_t d = 0; d < dim; ++d) {
      m[d] = b1 * m[d] + (1.0f - b1) * g[d];
      w[d] = decay * w[d] - rate * m[d];
    }
  }

 private:
  static float BiasCorrection(float beta, int64_t step) {
    return static_cast<float>(1.0 / (1.0 - std::pow(static_cast<double>(beta), step)));
  }
};

// What a caller needs to know of a rule without applying it.
struct RuleInfo {
  std::string name;
  std::vector<std::string> hypers;
  int64_t (*state_width)(int64_t dim);
};

// The rule of this name, or an error that lists the names.
Status FindRule(const std::string& name, RuleInfo* out);

// An error unless the rule exists and has these many hyper-parameters, all finite, and step >= 1.
Status CheckRule(const RuleCall& call);

// Applies the rule to rows[i], whose state begins at float `state_at`, with grads[i], for i in
// [0, n); null rows are passed over. The call must have passed CheckRule, and the rows must differ.
void ApplyRule(const RuleCall& call, float* const* rows, const float* grads, int64_t n, int64_t dim,
               int64_t state_at, WorkerPool* pool);

// The index of the first element that is not finite, or -1.
int64_t FirstNonFinite(const float* values, int64_t n, WorkerPool* pool);

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_UPDATE_RULES_H_
