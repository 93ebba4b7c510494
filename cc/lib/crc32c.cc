#include "cc/lib/crc32c.h"

#include <array>
#include <cstring>

#include "cc/lib/cpu_dispatch.h"

namespace sparse_emb {
namespace {

// tables[j][b]: the checksum of byte b followed by j zero bytes.
using Tables = std::array<std::array<uint32_t, 256>, 8>;

Tables MakeTables() {
  Tables tables;
  for (uint32_t b = 0; b < 256; ++b) {
    uint32_t crc = b;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1 ? 0x82f63b78u : 0u);
    tables[0][b] = crc;
  }
  for (int j = 1; j < 8; ++j) {
    for (uint32_t b = 0; b < 256; ++b) {
      const uint32_t crc = tables[j - 1][b];
      tables[j][b] = (crc >> 8) ^ tables[0][crc & 0xff];
    }
  }
  return tables;
}

#if defined(__x86_64__)
// The instruction takes three cycles, but one can begin in each: three lanes of the data go side
// by side, and are put together by what kLane zero bytes make of a checksum, which is linear in it.
constexpr int64_t kLane = 1024;

// shifts[j][b]: what kLane zero bytes make of the checksum b << 8 j.
using Shifts = std::array<std::array<uint32_t, 256>, 4>;

Shifts MakeShifts() {
  const Tables tables = MakeTables();
  Shifts shifts = {};
  for (int bit = 0; bit < 32; ++bit) {
    uint32_t crc = uint32_t{1} << bit;
    for (int64_t i = 0; i < kLane; ++i) crc = (crc >> 8) ^ tables[0][crc & 0xff];
    for (uint32_t b = 0; b < 256; ++b) {
      if (b >> (bit % 8) & 1) shifts[bit / 8][b] ^= crc;
    }
  }
  return shifts;
}

__attribute__((target("sse4.2"))) uint32_t Crc32cSse42(const void* data, int64_t bytes,
                                                       uint32_t before) {
  static const Shifts shifts = MakeShifts();
  const auto shift = [](uint64_t crc) {
    return shifts[0][crc & 0xff] ^ shifts[1][crc >> 8 & 0xff] ^ shifts[2][crc >> 16 & 0xff] ^
           shifts[3][crc >> 24 & 0xff];
  };
  const auto word = [](const char* at) {
    uint64_t value;
    std::memcpy(&value, at, sizeof(value));
    return value;
  };
  const char* at = static_cast<const char*>(data);
  uint64_t crc = static_cast<uint32_t>(~before);
  for (; bytes >= 3 * kLane; bytes -= 3 * kLane, at += 3 * kLane) {
    uint64_t second = 0, third = 0;
    for (int64_t i = 0; i < kLane; i += 8) {
      crc = __builtin_ia32_crc32di(crc, word(at + i));
      second = __builtin_ia32_crc32di(second, word(at + kLane + i));
      third = __builtin_ia32_crc32di(third, word(at + 2 * kLane + i));
    }
    crc = shift(shift(crc) ^ second) ^ third;
  }
  for (; bytes >= 8; bytes -= 8, at += 8) crc = __builtin_ia32_crc32di(crc, word(at));
  uint32_t crc32 = static_cast<uint32_t>(crc);
  for (; bytes > 0; --bytes, ++at) {
    crc32 = __builtin_ia32_crc32qi(crc32, static_cast<unsigned char>(*at));
  }
  return ~crc32;
}
#endif

}  // namespace

uint32_t Crc32cPortable(const void* data, int64_t bytes, uint32_t before) {
  static const Tables tables = MakeTables();
  const unsigned char* at = static_cast<const unsigned char*>(data);
  uint32_t crc = ~before;
  for (; bytes >= 8; bytes -= 8, at += 8) {
    const uint32_t low =
        crc ^ (at[0] | at[1] << 8 | at[2] << 16 | static_cast<uint32_t>(at[3]) << 24);
    crc = tables[7][low & 0xff] ^ tables[6][low >> 8 & 0xff] ^ tables[5][low >> 16 & 0xff] ^
          tables[4][low >> 24] ^ tables[3][at[4]] ^ tables[2][at[5]] ^ tables[1][at[6]] ^
          tables[0][at[7]];
  }
  for (; bytes > 0; --bytes, ++at) crc = (crc >> 8) ^ tables[0][(crc ^ *at) & 0xff];
  return ~crc;
}

uint32_t Crc32c(const void* data, int64_t bytes, uint32_t before) {
#if defined(__x86_64__)
  // Every processor with AVX2 has SSE 4.2.
  if (BestIsa() != Isa::kBaseline) return Crc32cSse42(data, bytes, before);
#endif
  return Crc32cPortable(data, bytes, before);
}

}  // namespace sparse_emb
