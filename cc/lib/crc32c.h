// CRC-32C (Castagnoli's polynomial 0x1edc6f41, bits reflected), the checksum of iSCSI (RFC 3720),
// SSE 4.2 and TensorFlow's bundles.
#ifndef TF_SPARSE_EMB_CC_LIB_CRC32C_H_
#define TF_SPARSE_EMB_CC_LIB_CRC32C_H_

#include <cstdint>

namespace sparse_emb {

// The checksum of `bytes` bytes at `data`, which follow others whose checksum is `before`:
// Crc32c(b, Crc32c(a)) = Crc32c(ab). The processor's instruction where there is one.
uint32_t Crc32c(const void* data, int64_t bytes, uint32_t before = 0);

// The same without that instruction.
uint32_t Crc32cPortable(const void* data, int64_t bytes, uint32_t before = 0);

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_CRC32C_H_
