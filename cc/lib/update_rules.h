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

  SPARSE_EMB_INLINE void Apply(float* __restrict w, float* __restrict, const float* __restrict g,
                               int64_t dim) const {
    for (int64_t d = 0; d < dim; ++d) w[d] = decay * w[d] - lr * g[d];
  }
};

// SGD with momentum (keras.optimizers.SGD), on touched rows only.
//
//   u = mu u - lr g
//   w += u, with nesterov: w += mu u - lr g
//
// State: [u: D]. nesterov is 0 or 1.
struct Momentum {
  static constexpr const char* kName = "momentum";
  static constexpr const char* kHypers[] = {"learning_rate", "momentum", "nesterov",
                                            "weight_decay"};
  static int64_t StateWidth(int64_t dim) { return dim; }

  float lr, mu, decay;
  bool nesterov;
  explicit Momentum(const RuleCall& call)
      : lr(call.hypers[0]),
        mu(call.hypers[1]),
        decay(1.0f - lr * call.hypers[3]),
        nesterov(call.hypers[2] != 0.0f) {}

  SPARSE_EMB_INLINE void Apply(float* __restrict w, float* __restrict u, const float* __restrict g,
                               int64_t dim) const {
    for (int64_t d = 0; d < dim; ++d) {
      const float push = lr * g[d];
      u[d] = mu * u[d] - push;
      w[d] = decay * w[d] + (nesterov ? mu * u[d] - push : u[d]);
    }
  }
};

// Adagrad, element by element (keras.optimizers.Adagrad).
//
//   a += g^2
//   w -= lr g / sqrt(a + eps) + lr wd w
//
// State: [a: D].
struct Adagrad {
  static constexpr const char* kName = "adagrad";
  static constexpr const char* kHypers[] = {"learning_rate", "epsilon", "weight_decay"};
  static int64_t StateWidth(int64_t dim) { return dim; }

  float lr, eps, decay;
  explicit Adagrad(const RuleCall& call)
      : lr(call.hypers[0]), eps(call.hypers[1]), decay(1.0f - lr * call.hypers[2]) {}

  SPARSE_EMB_INLINE void Apply(float* __restrict w, float* __restrict a, const float* __restrict g,
                               int64_t dim) const {
    for (int64_t d = 0; d < dim; ++d) {
      a[d] += g[d] * g[d];
      w[d] = decay * w[d] - lr * g[d] / std::sqrt(a[d] + eps);
    }
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

  SPARSE_EMB_INLINE void Apply(float* __restrict w, float* __restrict s, const float* __restrict g,
                               int64_t dim) const {
    s[0] += Dot(g, g, dim) / static_cast<float>(dim);
    const float rate = lr / (std::sqrt(s[0]) + eps);
    for (int64_t d = 0; d < dim; ++d) w[d] = decay * w[d] - rate * g[d];
  }
};

// Adagrad whose accumulators fade (DeepRec's AdagradDecay).
//
//   if floor(t / decay_step) > k: a = max(decay_rate a, a0); k += 1
//   a += g^2
//   w -= lr g / sqrt(a) + lr wd w
//
// State: [a: D | k: 1]. A row fades once a touch, however long it has not been touched.
struct AdagradDecay {
  static constexpr const char* kName = "adagrad_decay";
  static constexpr const char* kHypers[] = {"learning_rate", "decay_step", "decay_rate",
                                            "initial_accumulator_value", "weight_decay"};
  static int64_t StateWidth(int64_t dim) { return dim + 1; }

  float lr, fade, least, decay, period;
  explicit AdagradDecay(const RuleCall& call)
      : lr(call.hypers[0]),
        fade(call.hypers[2]),
        least(call.hypers[3]),
        decay(1.0f - lr * call.hypers[4]),
        period(static_cast<float>(std::floor(static_cast<double>(call.step) / call.hypers[1]))) {}

  SPARSE_EMB_INLINE void Apply(float* __restrict w, float* __restrict a, const float* __restrict g,
                               int64_t dim) const {
    float& k = a[dim];
    if (period > k) {
      for (int64_t d = 0; d < dim; ++d) a[d] = fade * a[d] > least ? fade * a[d] : least;
      k += 1.0f;
    }
    for (int64_t d = 0; d < dim; ++d) {
      a[d] += g[d] * g[d];
      w[d] = decay * w[d] - lr * g[d] / std::sqrt(a[d]);
    }
  }
};

// 1 / (1 - beta^step), which undoes the bias of a moment that began at zero.
inline float BiasCorrection(float beta, int64_t step) {
  return static_cast<float>(1.0 / (1.0 - std::pow(static_cast<double>(beta), step)));
}

// Lazy Adam, element by element (keras.optimizers.Adam on a row that every step touches).
//
//   m = b1 m + (1 - b1) g
//   v = b2 v + (1 - b2) g^2
//   w -= lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps) + lr wd w
//
// State: [m: D | v: D]; with amsgrad [m: D | v: D | v_hat: D], v_hat = max(v_hat, v) in v's place.
template <bool amsgrad>
struct LazyAdam {
  static constexpr const char* kName = amsgrad ? "adam_amsgrad" : "adam";
  static constexpr const char* kHypers[] = {"learning_rate", "beta_1", "beta_2", "epsilon",
                                            "weight_decay"};
  static int64_t StateWidth(int64_t dim) { return (amsgrad ? 3 : 2) * dim; }

  float b1, b2, eps, decay, rate;
  explicit LazyAdam(const RuleCall& call)
      : b1(call.hypers[1]),
        b2(call.hypers[2]),
        eps(call.hypers[3]),
        decay(1.0f - call.hypers[0] * call.hypers[4]),
        rate(call.hypers[0] * BiasCorrection(b1, call.step) /
             std::sqrt(BiasCorrection(b2, call.step))) {}

  SPARSE_EMB_INLINE void Apply(float* __restrict w, float* __restrict s, const float* __restrict g,
                               int64_t dim) const {
    float* m = s;
    float* v = s + dim;
    float* v_hat = s + 2 * dim;
    for (int64_t d = 0; d < dim; ++d) {
      m[d] = b1 * m[d] + (1.0f - b1) * g[d];
      v[d] = b2 * v[d] + (1.0f - b2) * (g[d] * g[d]);
      if (amsgrad) v_hat[d] = v_hat[d] > v[d] ? v_hat[d] : v[d];
      w[d] = decay * w[d] - rate * m[d] / (std::sqrt(amsgrad ? v_hat[d] : v[d]) + eps);
    }
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

  SPARSE_EMB_INLINE void Apply(float* __restrict w, float* __restrict s, const float* __restrict g,
                               int64_t dim) const {
    float* m = s;
    float& v = s[dim];
    v = b2 * v + (1.0f - b2) * (Dot(g, g, dim) / static_cast<float>(dim));
    const float rate = lr * m_correction / (std::sqrt(v * v_correction) + eps);
    for (int64_t d = 0; d < dim; ++d) m[d] = b1 * m[d] + (1.0f - b1) * g[d];
    for (int64_t d = 0; d < dim; ++d) w[d] = decay * w[d] - rate * m[d];
  }
};

// FTRL-proximal (keras.optimizers.Ftrl; McMahan et al., "Ad click prediction: a view from the
// trenches", 2013). Weight decay comes first, as in Keras.
//
//   a' = a + g^2;  p = -learning_rate_power
//   z += g + 2 shrinkage w - (a'^p - a^p) / lr w
//   w = (clip(z, -l1, l1) - z) / (a'^p / lr + 2 (l2 + beta / (2 lr))), 0/0 = 0
//
// State: [a: D | z: D].
struct Ftrl {
  static constexpr const char* kName = "ftrl";
  static constexpr const char* kHypers[] = {"learning_rate",
                                            "learning_rate_power",
                                            "l1_regularization_strength",
                                            "l2_regularization_strength",
                                            "l2_shrinkage_regularization_strength",
                                            "beta",
                                            "weight_decay"};
  static int64_t StateWidth(int64_t dim) { return 2 * dim; }

  float lr, power, l1, l2, shrinkage, decay;
  explicit Ftrl(const RuleCall& call)
      : lr(call.hypers[0]),
        power(-call.hypers[1]),
        l1(call.hypers[2]),
        l2(call.hypers[3] + call.hypers[5] / (2.0f * lr)),
        shrinkage(call.hypers[4]),
        decay(1.0f - lr * call.hypers[6]) {}

  SPARSE_EMB_INLINE void Apply(float* __restrict w, float* __restrict s, const float* __restrict g,
                               int64_t dim) const {
    float* a = s;
    float* z = s + dim;
    for (int64_t d = 0; d < dim; ++d) {
      const float old = decay * w[d];
      const float sum = a[d] + g[d] * g[d];
      const float root = Power(sum);
      z[d] += g[d] + 2.0f * shrinkage * old - (root - Power(a[d])) / lr * old;
      const float clipped = z[d] > l1 ? l1 : (z[d] < -l1 ? -l1 : z[d]);
      const float quadratic = root / lr + 2.0f * l2;
      w[d] = quadratic == 0.0f ? 0.0f : (clipped - z[d]) / quadratic;
      a[d] = sum;
    }
  }

 private:
  SPARSE_EMB_INLINE float Power(float x) const {
    return power == 0.5f ? std::sqrt(x) : std::pow(x, power);
  }
};

// RMSprop (keras.optimizers.RMSprop; Hinton, 2012), on touched rows only.
//
//   v = rho v + (1 - rho) g^2
//   centered: a = rho a + (1 - rho) g;  q = v - a^2, otherwise q = v
//   i = lr g / sqrt(q + eps)
//   with momentum: u = mu u + i; w -= u, otherwise w -= i
//
// and w -= lr wd w. State: [v: D | u: D, with momentum | a: D, centered].
template <bool centered, bool has_momentum>
struct RmsProp {
  static constexpr const char* kName =
      centered ? (has_momentum ? "rmsprop_centered_momentum" : "rmsprop_centered")
               : (has_momentum ? "rmsprop_momentum" : "rmsprop");
  static constexpr const char* kHypers[] = {"learning_rate", "rho", "momentum", "epsilon",
                                            "weight_decay"};
  static int64_t StateWidth(int64_t dim) { return (1 + has_momentum + centered) * dim; }

  float lr, rho, mu, eps, decay;
  explicit RmsProp(const RuleCall& call)
      : lr(call.hypers[0]),
        rho(call.hypers[1]),
        mu(call.hypers[2]),
        eps(call.hypers[3]),
        decay(1.0f - lr * call.hypers[4]) {}

  SPARSE_EMB_INLINE void Apply(float* __restrict w, float* __restrict s, const float* __restrict g,
                               int64_t dim) const {
    float* v = s;
    float* u = s + dim;
    float* a = s + (1 + has_momentum) * dim;
    for (int64_t d = 0; d < dim; ++d) {
      v[d] = rho * v[d] + (1.0f - rho) * (g[d] * g[d]);
      float q = v[d];
      if (centered) {
        a[d] = rho * a[d] + (1.0f - rho) * g[d];
        q -= a[d] * a[d];
      }
      float delta = lr * g[d] / std::sqrt(q + eps);
      if (has_momentum) delta = u[d] = mu * u[d] + delta;
      w[d] = decay * w[d] - delta;
    }
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

// An error unless the rule exists and has these many hyper-parameters, all finite, a decay_step of
// at least 1, and step >= 1.
Status CheckRule(const RuleCall& call);

// Applies the rule to rows[i], whose state begins at float `state_at`, with grads[i], for i in
// [0, n); null rows are passed over. The call must have passed CheckRule, and the rows must differ.
void ApplyRule(const RuleCall& call, float* const* rows, const float* grads, int64_t n, int64_t dim,
               int64_t state_at, WorkerPool* pool);

// The index of the first element that is not finite, or -1.
int64_t FirstNonFinite(const float* values, int64_t n, WorkerPool* pool);

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_UPDATE_RULES_H_
