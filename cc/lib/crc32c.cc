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
__attribute__((target("sse4.2"))) uint32_t Crc32cSse42(const void* data, int64_t bytes,
                                                       uint32_t before) {
  const char* at = static_cast<const char*>(data);
  uint64_t crc = ~before;
  for (; bytes >= 8; bytes -= 8, at += 8) {
    uint64_t word;
    std::memcpy(&word, at, sizeof(word));
    crc = __builtin_ia32_crc32di(crc, word);
  }
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
