#include "cc/lib/crc32c.h"

#include <string>
#include <vector>

#include "tests/cc/testing.h"

namespace sparse_emb {
namespace testing {
namespace {

// Bit by bit, from the definition.
uint32_t SlowCrc32c(const std::string& bytes) {
  uint32_t crc = ~0u;
  for (const char c : bytes) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1 ? 0x82f63b78u : 0u);
  }
  return ~crc;
}

std::string SomeBytes(int64_t n) {
  Random random(3);
  std::string bytes(n, 0);
  for (char& c : bytes) c = static_cast<char>(random.Bits());
  return bytes;
}

TEST(Crc32cHasTheValuesOfTheStandard) {
  // RFC 3720, B.4, and the check value of the catalogue of CRCs.
  std::string ascending(32, 0);
  for (int i = 0; i < 32; ++i) ascending[i] = static_cast<char>(i);
  for (const auto& [bytes, want] :
       std::vector<std::pair<std::string, uint32_t>>{{"", 0},
                                                     {"123456789", 0xe3069283},
                                                     {std::string(32, 0), 0x8a9136aa},
                                                     {std::string(32, '\xff'), 0x62a8ab43},
                                                     {ascending, 0x46dd794e}}) {
    EXPECT_EQ(Crc32c(bytes.data(), bytes.size()), want);
    EXPECT_EQ(Crc32cPortable(bytes.data(), bytes.size()), want);
  }
}

TEST(Crc32cIsThatOfTheSlowTwinForEveryLengthAndAlignment) {
  const std::string bytes = SomeBytes(300);
  for (int64_t begin = 0; begin < 9; ++begin) {
    for (int64_t n = 0; n < 80; ++n) {
      const std::string part = bytes.substr(begin, n);
      EXPECT_EQ(Crc32c(bytes.data() + begin, n), SlowCrc32c(part));
      EXPECT_EQ(Crc32cPortable(bytes.data() + begin, n), SlowCrc32c(part));
    }
  }
}

TEST(Crc32cIsThatOfTheSlowTwinForLongData) {
  const std::string bytes = SomeBytes(20000);
  for (int64_t n : {1023, 3071, 3072, 3073, 6144, 9999, 20000}) {
    const uint32_t want = SlowCrc32c(bytes.substr(0, n));
    EXPECT_EQ(Crc32c(bytes.data(), n), want);
    EXPECT_EQ(Crc32cPortable(bytes.data(), n), want);
  }
}

TEST(Crc32cGoesOnFromWhatStoodBefore) {
  const std::string bytes = SomeBytes(200);
  const uint32_t want = Crc32c(bytes.data(), bytes.size());
  for (int64_t cut = 0; cut <= 200; cut += 7) {
    const uint32_t before = Crc32c(bytes.data(), cut);
    EXPECT_EQ(Crc32c(bytes.data() + cut, bytes.size() - cut, before), want);
    EXPECT_EQ(Crc32cPortable(bytes.data() + cut, bytes.size() - cut, before), want);
  }
}

}  // namespace
}  // namespace testing
}  // namespace sparse_emb
