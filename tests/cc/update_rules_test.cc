// The update rules against twins in double precision.
#include "cc/lib/update_rules.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "tests/cc/testing.h"

namespace sparse_emb {
namespace testing {
namespace {

using Doubles = std::vector<double>;

double MeanSquare(const Doubles& g) {
  double sum = 0;
  for (double x : g) sum += x * x;
  return sum / g.size();
}

// The header's formulas: w the embedding, s the state, h the hyper-parameters, t the step.
using Twin = void (*)(Doubles* w, Doubles* s, const Doubles& g, const Doubles& h, int64_t t);

void SgdTwin(Doubles* w, Doubles*, const Doubles& g, const Doubles& h, int64_t) {
  for (size_t d = 0; d < g.size(); ++d) (*w)[d] -= h[0] * (g[d] + h[1] * (*w)[d]);
}

void RowWiseAdagradTwin(Doubles* w, Doubles* s, const Doubles& g, const Doubles& h, int64_t) {
  double& a = (*s)[0];
  a += MeanSquare(g);
  for (size_t d = 0; d < g.size(); ++d) {
    (*w)[d] -= h[0] * g[d] / (std::sqrt(a) + h[1]) + h[0] * h[2] * (*w)[d];
  }
}

void RowWiseAdamTwin(Doubles* w, Doubles* s, const Doubles& g, const Doubles& h, int64_t t) {
  const double b1 = h[1], b2 = h[2];
  double& v = s->back();
  v = b2 * v + (1 - b2) * MeanSquare(g);
  const double root = std::sqrt(v / (1 - std::pow(b2, t)));
  for (size_t d = 0; d < g.size(); ++d) {
    double& m = (*s)[d];
    m = b1 * m + (1 - b1) * g[d];
    (*w)[d] -= h[0] * (m / (1 - std::pow(b1, t))) / (root + h[3]) + h[0] * h[4] * (*w)[d];
  }
}

void MomentumTwin(Doubles* w, Doubles* s, const Doubles& g, const Doubles& h, int64_t) {
  for (size_t d = 0; d < g.size(); ++d) {
    double& u = (*s)[d];
    u = h[1] * u - h[0] * g[d];
    (*w)[d] += (h[2] != 0 ? h[1] * u - h[0] * g[d] : u) - h[0] * h[3] * (*w)[d];
  }
}

void AdagradTwin(Doubles* w, Doubles* s, const Doubles& g, const Doubles& h, int64_t) {
  for (size_t d = 0; d < g.size(); ++d) {
    double& a = (*s)[d];
    a += g[d] * g[d];
    (*w)[d] -= h[0] * g[d] / std::sqrt(a + h[1]) + h[0] * h[2] * (*w)[d];
  }
}

void AdagradDecayTwin(Doubles* w, Doubles* s, const Doubles& g, const Doubles& h, int64_t t) {
  double& k = s->back();
  const bool fades = std::floor(t / h[1]) > k;
  if (fades) k += 1;
  for (size_t d = 0; d < g.size(); ++d) {
    double& a = (*s)[d];
    if (fades) a = std::max(h[2] * a, h[3]);
    a += g[d] * g[d];
    (*w)[d] -= h[0] * g[d] / std::sqrt(a) + h[0] * h[4] * (*w)[d];
  }
}

template <bool amsgrad>
void AdamTwin(Doubles* w, Doubles* s, const Doubles& g, const Doubles& h, int64_t t) {
  const double b1 = h[1], b2 = h[2];
  const double rate = h[0] * std::sqrt(1 - std::pow(b2, t)) / (1 - std::pow(b1, t));
  const size_t dim = g.size();
  for (size_t d = 0; d < dim; ++d) {
    double& m = (*s)[d];
    double& v = (*s)[dim + d];
    m = b1 * m + (1 - b1) * g[d];
    v = b2 * v + (1 - b2) * g[d] * g[d];
    double divisor = v;
    if (amsgrad) divisor = (*s)[2 * dim + d] = std::max((*s)[2 * dim + d], v);
    (*w)[d] -= rate * m / (std::sqrt(divisor) + h[3]) + h[0] * h[4] * (*w)[d];
  }
}

void FtrlTwin(Doubles* w, Doubles* s, const Doubles& g, const Doubles& h, int64_t) {
  const double lr = h[0], power = -h[1], l1 = h[2], l2 = h[3] + h[5] / (2 * lr);
  for (size_t d = 0; d < g.size(); ++d) {
    double& a = (*s)[d];
    double& z = (*s)[g.size() + d];
    const double old = (1 - lr * h[6]) * (*w)[d];
    const double sum = a + g[d] * g[d];
    z += g[d] + 2 * h[4] * old - (std::pow(sum, power) - std::pow(a, power)) / lr * old;
    a = sum;
    (*w)[d] = (std::min(std::max(z, -l1), l1) - z) / (std::pow(sum, power) / lr + 2 * l2);
  }
}

template <bool centered, bool has_momentum>
void RmsPropTwin(Doubles* w, Doubles* s, const Doubles& g, const Doubles& h, int64_t) {
  const size_t dim = g.size();
  for (size_t d = 0; d < dim; ++d) {
    double& v = (*s)[d];
    v = h[1] * v + (1 - h[1]) * g[d] * g[d];
    double q = v;
    if (centered) {
      double& a = (*s)[(1 + has_momentum) * dim + d];
      a = h[1] * a + (1 - h[1]) * g[d];
      q -= a * a;
    }
    double delta = h[0] * g[d] / std::sqrt(q + h[3]);
    if (has_momentum) delta = (*s)[dim + d] = h[2] * (*s)[dim + d] + delta;
    (*w)[d] -= delta + h[0] * h[4] * (*w)[d];
  }
}

struct Case {
  RuleCall call;
  float initial_state;
  Twin twin;
  double state_tolerance = 1e-6;
};

const Case kCases[] = {
    {{"sgd", {0.1f, 0.0f}}, 0, &SgdTwin},
    {{"sgd", {0.1f, 0.02f}}, 0, &SgdTwin},
    {{"row_wise_adagrad", {0.05f, 1e-8f, 0.0f}}, 0, &RowWiseAdagradTwin},
    {{"row_wise_adagrad", {0.05f, 0.1f, 0.02f}}, 0.1f, &RowWiseAdagradTwin},
    {{"row_wise_adam", {0.001f, 0.9f, 0.999f, 1e-8f, 0.0f}}, 0, &RowWiseAdamTwin},
    {{"row_wise_adam", {0.01f, 0.0f, 0.9f, 1e-3f, 0.02f}}, 0, &RowWiseAdamTwin},
    {{"momentum", {0.01f, 0.9f, 0.0f, 0.0f}}, 0, &MomentumTwin},
    {{"momentum", {0.01f, 0.9f, 1.0f, 0.02f}}, 0, &MomentumTwin},
    {{"adagrad", {0.05f, 0.02f, 0.02f}}, 0.1f, &AdagradTwin},
    // Fades at the steps 7, 14, ..., as k begins below 1.
    {{"adagrad_decay", {0.05f, 7.0f, 0.5f, 0.1f, 0.02f}}, 0.1f, &AdagradDecayTwin},
    {{"adam", {0.001f, 0.9f, 0.999f, 1e-7f, 0.02f}}, 0, &AdamTwin<false>},
    {{"adam_amsgrad", {0.001f, 0.9f, 0.9f, 1e-7f, 0.0f}}, 0, &AdamTwin<true>},
    // Its z is a sum of 50 terms of either sign, as large as 1 / lr.
    {{"ftrl", {0.05f, -0.5f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f}}, 0.1f, &FtrlTwin, 1e-5},
    {{"ftrl", {0.05f, -0.7f, 0.3f, 0.1f, 0.05f, 0.2f, 0.02f}}, 0.1f, &FtrlTwin, 1e-5},
    {{"rmsprop", {0.001f, 0.9f, 0.0f, 1e-7f, 0.02f}}, 0, &RmsPropTwin<false, false>},
    {{"rmsprop_momentum", {0.001f, 0.9f, 0.8f, 1e-7f, 0.0f}}, 0, &RmsPropTwin<false, true>},
    {{"rmsprop_centered", {0.001f, 0.9f, 0.0f, 1e-3f, 0.0f}}, 0, &RmsPropTwin<true, false>},
    {{"rmsprop_centered_momentum", {0.001f, 0.9f, 0.8f, 1e-3f, 0.02f}},
     0,
     &RmsPropTwin<true, true>},
};

int64_t WidthOfState(const std::string& rule, int64_t dim) {
  RuleInfo info;
  EXPECT_OK(FindRule(rule, &info));
  EXPECT_EQ(info.name, rule);
  return info.state_width(dim);
}

void ForEachCase(const std::function<void(const Case&, int64_t dim)>& test) {
  for (const Case& c : kCases) {
    for (int64_t dim : {1, 3, 16, 17, 32, 64}) {
      SCOPED_TRACE(c.call.rule, ", dim ", dim);
      test(c, dim);
    }
  }
}

// Rows side by side, with their addresses in another order.
struct SomeRows {
  std::vector<float> values;
  std::vector<float*> addresses;

  SomeRows(const Case& c, int64_t dim, int64_t count) {
    Random random(dim);
    const int64_t width = dim + WidthOfState(c.call.rule, dim);
    for (int64_t i = 0; i < count; ++i) {
      const std::vector<float> embedding = random.Floats(dim);
      values.insert(values.end(), embedding.begin(), embedding.end());
      values.resize((i + 1) * width, c.initial_state);
    }
    for (int64_t i = 0; i < count; ++i) addresses.push_back(&values[i * 7 % count * width]);
  }
};

TEST(RulesFollowTheirFormulasFor50Steps) {
  ForEachCase([](const Case& c, int64_t dim) {
    constexpr int64_t kRows = 10;
    const int64_t width = dim + WidthOfState(c.call.rule, dim);
    SomeRows rows(c, dim, kRows);
    std::vector<Doubles> w, s;
    for (const float* row : rows.addresses) {
      w.emplace_back(row, row + dim);
      s.emplace_back(row + dim, row + width);
    }
    Random random(4);
    StdThreadPool pool(2);
    for (int64_t t = 1; t <= 50; ++t) {
      RuleCall call = c.call;
      call.step = t;
      EXPECT_OK(CheckRule(call));
      std::vector<float> grads = random.Floats(kRows * dim);
      // A gradient of zeros, and one of another size.
      std::fill(grads.begin(), grads.begin() + dim, 0.0f);
      for (int64_t d = 0; d < dim; ++d) grads[dim + d] *= 1e-3f;
      ApplyRule(call, rows.addresses.data(), grads.data(), kRows, dim, dim, &pool);
      for (int64_t i = 0; i < kRows; ++i) {
        c.twin(&w[i], &s[i], Doubles(&grads[i * dim], &grads[i * dim] + dim),
               Doubles(call.hypers.begin(), call.hypers.end()), t);
        for (int64_t d = 0; d < dim; ++d) EXPECT_NEAR(rows.addresses[i][d], w[i][d], 1e-5);
        for (int64_t d = dim; d < width; ++d) {
          const double want = s[i][d - dim];
          EXPECT_NEAR(rows.addresses[i][d], want, 1e-5 * std::abs(want) + c.state_tolerance);
        }
      }
    }
  });
}

TEST(RulesGiveTheSameBitsWithAnyThreads) {
  ForEachCase([](const Case& c, int64_t dim) {
    constexpr int64_t kRows = 101;
    const std::vector<float> grads = Random(6).Floats(kRows * dim);
    std::vector<float> first;
    for (int threads = 1; threads <= 4; ++threads) {
      SomeRows rows(c, dim, kRows);
      StdThreadPool pool(threads);
      for (int step = 0; step < 3; ++step) {
        ApplyRule(c.call, rows.addresses.data(), grads.data(), kRows, dim, dim, &pool);
      }
      if (threads == 1) first = rows.values;
      EXPECT_EQ(rows.values, first);
    }
  });
}

TEST(RowsThatAreNotNamedDoNotChange) {
  ForEachCase([](const Case& c, int64_t dim) {
    constexpr int64_t kRows = 20;
    SomeRows rows(c, dim, kRows);
    const std::vector<float> before = rows.values;
    const std::vector<float> grads = Random(6).Floats(dim);
    SerialPool pool;
    ApplyRule(c.call, rows.addresses.data(), nullptr, 0, dim, dim, &pool);
    EXPECT_EQ(rows.values, before);
    ApplyRule(c.call, &rows.addresses[3], grads.data(), 1, dim, dim, &pool);
    const int64_t width = rows.values.size() / kRows;
    for (int64_t i = 0; i < kRows; ++i) {
      const bool same =
          std::equal(&rows.values[i * width], &rows.values[i * width] + width, &before[i * width]);
      EXPECT_EQ(same, &rows.values[i * width] != rows.addresses[3]);
    }
  });
}

// The counts of a row stand between its embedding and its state.
TEST(WhatStandsBeforeTheStateIsLeftAlone) {
  ForEachCase([](const Case& c, int64_t dim) {
    constexpr int64_t kRows = 20, kGap = 4;
    SerialPool pool;
    const int64_t width = dim + WidthOfState(c.call.rule, dim);
    SomeRows rows(c, dim, kRows);
    std::vector<float> wider;
    for (int64_t i = 0; i < kRows; ++i) {
      const float* row = &rows.values[i * width];
      wider.insert(wider.end(), row, row + dim);
      wider.resize(wider.size() + kGap, NAN);
      wider.insert(wider.end(), row + dim, row + width);
    }
    std::vector<float*> addresses;
    for (float* address : rows.addresses) {
      addresses.push_back(&wider[(address - rows.values.data()) / width * (width + kGap)]);
    }
    const std::vector<float> grads = Random(6).Floats(kRows * dim);
    for (int step = 0; step < 3; ++step) {
      ApplyRule(c.call, rows.addresses.data(), grads.data(), kRows, dim, dim, &pool);
      ApplyRule(c.call, addresses.data(), grads.data(), kRows, dim, dim + kGap, &pool);
    }
    for (int64_t i = 0; i < kRows; ++i) {
      const float *row = &rows.values[i * width], *got = &wider[i * (width + kGap)];
      EXPECT_EQ(std::vector<float>(got, got + dim), std::vector<float>(row, row + dim));
      EXPECT_EQ(std::vector<float>(got + dim, got + dim + kGap), std::vector<float>(kGap, NAN));
      EXPECT_EQ(std::vector<float>(got + dim + kGap, got + kGap + width),
                std::vector<float>(row + dim, row + width));
    }
  });
}

TEST(NullRowsArePassedOver) {
  ForEachCase([](const Case& c, int64_t dim) {
    constexpr int64_t kRows = 50;
    const std::vector<float> grads = Random(6).Floats(kRows * dim);
    SerialPool serial;
    SomeRows want(c, dim, kRows);
    for (int64_t i = 0; i < kRows; ++i) {
      if (i % 3 != 0) continue;
      ApplyRule(c.call, &want.addresses[i], &grads[i * dim], 1, dim, dim, &serial);
    }
    for (int threads = 1; threads <= 4; ++threads) {
      StdThreadPool pool(threads);
      SomeRows rows(c, dim, kRows);
      for (int64_t i = 0; i < kRows; ++i) {
        if (i % 3 != 0) rows.addresses[i] = nullptr;
      }
      ApplyRule(c.call, rows.addresses.data(), grads.data(), kRows, dim, dim, &pool);
      EXPECT_EQ(rows.values, want.values);
    }
  });
}

// The power of a beta near 1 with a large step neither overflows nor loses the correction.
TEST(AdamCorrectsTheBiasAtAnyStep) {
  for (int64_t step : {int64_t{1}, int64_t{2}, int64_t{1000}, int64_t{1} << 40}) {
    const RuleCall call{"row_wise_adam", {0.001f, 0.9f, 0.999f, 1e-8f, 0.0f}, step};
    std::vector<float> row = {1, 1, 0, 0, 0};
    Doubles w = {1, 1}, s = {0, 0, 0};
    const std::vector<float> grad = {0.5f, -2.0f};
    float* address = row.data();
    SerialPool pool;
    ApplyRule(call, &address, grad.data(), 1, 2, 2, &pool);
    RowWiseAdamTwin(&w, &s, {0.5, -2}, Doubles(call.hypers.begin(), call.hypers.end()), step);
    for (int d = 0; d < 2; ++d) EXPECT_NEAR(row[d], w[d], 1e-7);
  }
}

TEST(ABadRuleCallIsNamed) {
  RuleInfo info;
  EXPECT_ERROR(FindRule("adamax", &info), Code::kInvalidArgument,
               "rule must be one of sgd, momentum, adagrad, row_wise_adagrad, adagrad_decay, adam, "
               "adam_amsgrad, row_wise_adam, ftrl, rmsprop, rmsprop_momentum, rmsprop_centered, "
               "rmsprop_centered_momentum, got 'adamax'");
  EXPECT_ERROR(CheckRule({"sgd", {}, 1}), Code::kInvalidArgument,
               "hypers of rule sgd must be [learning_rate, weight_decay], got 0 values");
  EXPECT_ERROR(CheckRule({"sgd", {0.1f, 0.0f}, 0}), Code::kInvalidArgument,
               "step must be at least 1, got 0");
  // A division by which ended the process.
  for (const float decay_step : {0.0f, 0.5f, -3.0f}) {
    EXPECT_ERROR(CheckRule({"adagrad_decay", {0.1f, decay_step, 0.9f, 0.1f, 0.0f}, 1}),
                 Code::kInvalidArgument,
                 Join("decay_step of rule adagrad_decay must be at least 1, got ", decay_step));
  }
  EXPECT_OK(CheckRule({"adagrad_decay", {0.1f, 1e30f, 0.9f, 0.1f, 0.0f}, 1}));
}

TEST(FirstNonFiniteIsTheFirst) {
  const float inf = std::numeric_limits<float>::infinity();
  for (int threads = 1; threads <= 4; ++threads) {
    StdThreadPool pool(threads);
    EXPECT_EQ(FirstNonFinite(nullptr, 0, &pool), -1);
    for (int64_t n : {1, 2, 1023, 1024, 1025, 10000}) {
      std::vector<float> values = Random(n).Floats(n);
      values[0] = std::numeric_limits<float>::max();
      values[n / 2] = -std::numeric_limits<float>::denorm_min();
      EXPECT_EQ(FirstNonFinite(values.data(), n, &pool), -1);
      for (float bad : {inf, -inf, std::nanf("1"), -std::nanf("2")}) {
        for (int64_t i : {n - 1, n * 2 / 3, n / 2, n / 3, int64_t{0}}) {
          values[i] = bad;  // before all that are bad already
          EXPECT_EQ(FirstNonFinite(values.data(), n, &pool), i);
        }
        values.assign(n, 1.0f);
      }
    }
  }
}

}  // namespace
}  // namespace testing
}  // namespace sparse_emb
