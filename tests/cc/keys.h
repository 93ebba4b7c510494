// Sets of keys that are hard on a hash table.
#ifndef TF_SPARSE_EMB_TESTS_CC_KEYS_H_
#define TF_SPARSE_EMB_TESTS_CC_KEYS_H_

#include <cstdint>
#include <limits>
#include <set>
#include <vector>

namespace sparse_emb {
namespace testing {

inline uint64_t UndoXorShift(uint64_t y, int shift) {
  uint64_t x = y;
  for (int known = shift; known < 64; known += shift) x = y ^ (x >> shift);
  return x;
}

// 1 / a mod 2^64 for an odd a: Newton's method doubles the bits that agree, 3 at first.
inline uint64_t Inverse64(uint64_t a) {
  uint64_t x = a;
  for (int i = 0; i < 5; ++i) x *= 2 - a * x;
  return x;
}

// The x with Mix64(x) == z.
inline uint64_t UndoMix64(uint64_t z) {
  z = UndoXorShift(z, 31) * Inverse64(0x94d049bb133111ebull);
  z = UndoXorShift(z, 27) * Inverse64(0xbf58476d1ce4e5b9ull);
  return UndoXorShift(z, 30);
}

// The key with HashKey(key) == hash.
inline int64_t KeyOfHash(uint64_t hash) {
  return static_cast<int64_t>(UndoMix64(hash) - 0x9e3779b97f4a7c15ull);
}

inline std::vector<int64_t> DenseKeys(int64_t n) {
  std::vector<int64_t> keys;
  for (int64_t i = 0; i < n; ++i) keys.push_back(i);
  return keys;
}

inline std::vector<int64_t> ExtremeKeys() {
  constexpr int64_t kMin = std::numeric_limits<int64_t>::min();
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  std::vector<int64_t> keys = {kMin, kMin + 1, kMax, kMax - 1, -1, 0, 1};
  for (int bits : {8, 31, 32, 33, 53, 62}) {
    const int64_t power = int64_t{1} << bits;
    keys.insert(keys.end(), {power, -power, power - 1, -power - 1});
  }
  return keys;
}

// Keys of one shard, with the low 32 bits of their hashes equal: one home slot, bucket and tag in
// every storage, whatever its size.
inline std::vector<int64_t> CollidingKeys(int64_t n, uint32_t low_bits = 0x12345678) {
  std::vector<int64_t> keys;
  for (int64_t i = 0; i < n; ++i) {
    keys.push_back(KeyOfHash(uint64_t{5} << 58 | static_cast<uint64_t>(i) << 32 | low_bits));
  }
  return keys;
}

// Multiples of powers of two, hashes that differ in the low bits alone (one shard) and hashes that
// differ in the high bits alone (one slot, bucket and tag in each shard).
inline std::vector<int64_t> AdversarialKeys(int64_t n) {
  std::vector<int64_t> keys = CollidingKeys(n / 4);
  for (int64_t i = 1; i <= n / 4; ++i) {
    keys.push_back(static_cast<int64_t>(static_cast<uint64_t>(i) << (8 + 8 * (i % 6))));
    keys.push_back(KeyOfHash(uint64_t{9} << 58 | static_cast<uint64_t>(i)));
    keys.push_back(KeyOfHash(static_cast<uint64_t>(i) << 56 | 1 | static_cast<uint64_t>(i) << 40));
  }
  return keys;
}

// Dense, adversarial and extreme keys, each once.
inline std::vector<int64_t> HardKeys(int64_t n) {
  const std::vector<int64_t> dense = DenseKeys(n), adversarial = AdversarialKeys(n),
                             extreme = ExtremeKeys();
  std::set<int64_t> keys(dense.begin(), dense.end());
  keys.insert(adversarial.begin(), adversarial.end());
  keys.insert(extreme.begin(), extreme.end());
  return {keys.begin(), keys.end()};
}

}  // namespace testing
}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_TESTS_CC_KEYS_H_
