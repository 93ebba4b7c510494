// The initial row of a key: a pure function of (seed, key), the same whatever the order of
// insertion, the number of threads, the storage or the instruction set.
//
// With G = 0x9e3779b97f4a7c15, the 64 bits of element d are
//
//   z = Mix64(Mix64(Mix64(key) + Mix64(seed + G)) + (d + 1) G)
//
// and the element is
//
//   constant(a, -): a
//
//   uniform(min, max): (max + min) / 2 + (max - min) / 2 * u
//     u = (int(z >> 40) - 2^23) 2^-23
//
//   normal(mean, stddev): mean + stddev sqrt(-2 ln u1) cos(2 pi u2)
//     u1 = ((z >> 40) + 1) 2^-24
//     u2 = ((z >> 16) mod 2^24) 2^-24
//
//   truncated_normal(mean, stddev): mean + stddev sqrt(2) erfinv(erf(sqrt 2) v)
//     v = ((z >> 40) + 1/2) 2^-23 - 1, so within two standard deviations
//
// Only uint64 add, multiply, xor and shift are used for z, so that stock TensorFlow ops can repeat
// it. The middle and the half width of uniform are computed in float64 and rounded to float32, the
// rest in float32, so uniform and constant repeat bit by bit; the normals are computed in float64
// and rounded.
#ifndef TF_SPARSE_EMB_CC_LIB_INITIAL_ROW_H_
#define TF_SPARSE_EMB_CC_LIB_INITIAL_ROW_H_

#include <cstdint>
#include <string>

#include "cc/lib/status.h"

namespace sparse_emb {

class InitialRow {
 public:
  enum class Kind { kConstant, kUniform, kNormal, kTruncatedNormal };

  // `kind` is "constant", "uniform", "normal" or "truncated_normal"; a and b are the arguments
  // above, in that order.
  static Status Make(const std::string& kind, float a, float b, int64_t seed, InitialRow* out);

  // What Make was given.
  const char* kind() const;
  float a() const { return given_a_; }
  float b() const { return given_b_; }
  int64_t seed() const { return seed_; }

  // Makes it what Make would have made of this seed.
  void SetSeed(int64_t seed);

  // Writes the `dim` elements of the key's initial row. Thread-safe.
  void Fill(int64_t key, float* row, int64_t dim) const;

 private:
  Kind kind_ = Kind::kConstant;
  float a_ = 0.0f;
  float b_ = 0.0f;
  uint64_t mixed_seed_ = 0;
  float given_a_ = 0.0f;
  float given_b_ = 0.0f;
  int64_t seed_ = 0;
};

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_INITIAL_ROW_H_
