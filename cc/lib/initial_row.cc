#include "cc/lib/initial_row.h"

#include <cmath>

#include "cc/lib/cpu_dispatch.h"
#include "cc/lib/hash.h"

namespace sparse_emb {
namespace {

constexpr uint64_t kStep = 0x9e3779b97f4a7c15ull;
constexpr double kTwoPi = 6.283185307179586476925;
constexpr double kTwoOverSqrtPi = 1.128379167095512573896;

SPARSE_EMB_INLINE uint64_t ElementBits(uint64_t base, int64_t d) {
  return Mix64(base + static_cast<uint64_t>(d + 1) * kStep);
}

SPARSE_EMB_INLINE float Uniform(uint64_t z, float middle, float half_width) {
  const int32_t u = static_cast<int32_t>(z >> 40) - (1 << 23);
  return middle + half_width * (static_cast<float>(u) * 0x1p-23f);
}

double Normal(uint64_t z) {
  const double u1 = static_cast<double>((z >> 40) + 1) * 0x1p-24;
  const double u2 = static_cast<double>((z >> 16) & 0xffffff) * 0x1p-24;
  return std::sqrt(-2.0 * std::log(u1)) * std::cos(kTwoPi * u2);
}

// The inverse of erf on |x| <= erf(sqrt 2), to the precision of double: a first guess (Winitzki,
// 2008, relative error 2e-3), then Newton's method, which doubles the digits each time.
double ErfInv(double x) {
  const double log_term = std::log(1.0 - x * x);
  const double b = 2.0 / (3.14159265358979323846 * 0.147) + 0.5 * log_term;
  double y = std::copysign(std::sqrt(std::sqrt(b * b - log_term / 0.147) - b), x);
  for (int i = 0; i < 3; ++i) {
    y -= (std::erf(y) - x) / (kTwoOverSqrtPi * std::exp(-y * y));
  }
  return y;
}

double TruncatedNormal(uint64_t z) {
  static const double kLimit = std::erf(std::sqrt(2.0));
  const double v = (static_cast<double>(z >> 40) + 0.5) * 0x1p-23 - 1.0;
  return std::sqrt(2.0) * ErfInv(kLimit * v);
}

}  // namespace

Status InitialRow::Make(const std::string& kind, float a, float b, int64_t seed, InitialRow* out) {
  if (!std::isfinite(a) || !std::isfinite(b)) {
    return Error(Code::kInvalidArgument, "initializer ", kind, " needs finite arguments, got ", a,
                 " and ", b);
  }
  if (kind == "constant") {
    out->kind_ = Kind::kConstant;
    out->a_ = a;
  } else if (kind == "uniform") {
    if (!(a <= b)) {
      return Error(Code::kInvalidArgument, "initializer uniform needs min <= max, got min ", a,
                   " and max ", b);
    }
    out->kind_ = Kind::kUniform;
    out->a_ = static_cast<float>((static_cast<double>(b) + a) / 2);
    out->b_ = static_cast<float>((static_cast<double>(b) - a) / 2);
  } else if (kind == "normal" || kind == "truncated_normal") {
    if (!(b >= 0)) {
      return Error(Code::kInvalidArgument, "initializer ", kind, " needs stddev >= 0, got ", b);
    }
    out->kind_ = kind == "normal" ? Kind::kNormal : Kind::kTruncatedNormal;
    out->a_ = a;
    out->b_ = b;
  } else {
    return Error(Code::kInvalidArgument,
                 "initializer must be constant, uniform, normal or truncated_normal, got ", kind);
  }
  out->given_a_ = a;
  out->given_b_ = b;
  out->SetSeed(seed);
  return {};
}

const char* InitialRow::kind() const {
  switch (kind_) {
    case Kind::kConstant:
      break;
    case Kind::kUniform:
      return "uniform";
    case Kind::kNormal:
      return "normal";
    case Kind::kTruncatedNormal:
      return "truncated_normal";
  }
  return "constant";
}

void InitialRow::SetSeed(int64_t seed) {
  seed_ = seed;
  mixed_seed_ = Mix64(static_cast<uint64_t>(seed) + kStep);
}

void InitialRow::Fill(int64_t key, float* row, int64_t dim) const {
  const uint64_t base = Mix64(Mix64(static_cast<uint64_t>(key)) + mixed_seed_);
  switch (kind_) {
    case Kind::kConstant:
      for (int64_t d = 0; d < dim; ++d) row[d] = a_;
      return;
    case Kind::kUniform:
      RunOnBestIsa([&]() SPARSE_EMB_INLINE_LAMBDA {
        for (int64_t d = 0; d < dim; ++d) row[d] = Uniform(ElementBits(base, d), a_, b_);
      });
      return;
    case Kind::kNormal:
      for (int64_t d = 0; d < dim; ++d) {
        row[d] = static_cast<float>(a_ + b_ * Normal(ElementBits(base, d)));
      }
      return;
    case Kind::kTruncatedNormal:
      for (int64_t d = 0; d < dim; ++d) {
        row[d] = static_cast<float>(a_ + b_ * TruncatedNormal(ElementBits(base, d)));
      }
      return;
  }
}

}  // namespace sparse_emb
