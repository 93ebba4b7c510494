// The bytes of a table's file (table_file.h), for tests that change them.
#ifndef TF_SPARSE_EMB_TESTS_CC_TABLE_FILE_BYTES_H_
#define TF_SPARSE_EMB_TESTS_CC_TABLE_FILE_BYTES_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>

#include "cc/lib/crc32c.h"

namespace sparse_emb {
namespace testing {

inline constexpr size_t kHeadBytes = 24;  // of the file, and of each block

template <class T>
T Get(const std::string& bytes, size_t at) {
  T value;
  std::memcpy(&value, &bytes[at], sizeof(value));
  return value;
}

template <class T>
void Put(T value, size_t at, std::string* bytes) {
  std::memcpy(&(*bytes)[at], &value, sizeof(value));
}

// Makes all checksums, and what the end says of the blocks, agree with the bytes, as far as there
// are whole blocks: what only a forger does.
inline void Seal(std::string* bytes) {
  const size_t size = bytes->size();
  if (size < kHeadBytes) return;
  const char* const data = bytes->data();
  size_t at = kHeadBytes + Get<uint32_t>(*bytes, 16);
  if (at > size) return;
  Put(Crc32c(data + kHeadBytes, at - kHeadBytes, Crc32c(data, 20)), 20, bytes);
  uint64_t rows = 0, blocks = 0;
  uint32_t crc_of_crcs = 0;
  while (at + kHeadBytes <= size) {
    const size_t payload = at + kHeadBytes;
    const uint64_t payload_bytes =
        std::min<uint64_t>(Get<uint64_t>(*bytes, at + 8), size - payload);
    if (std::memcmp(data + at, "DONE", 4) == 0 && payload_bytes == 24) {
      Put(rows, payload, bytes);
      Put(blocks, payload + 8, bytes);
      Put(crc_of_crcs, payload + 16, bytes);
    }
    const uint32_t crc = Crc32c(data + payload, payload_bytes);
    Put(crc, at + 16, bytes);
    Put(Crc32c(data + at, 20), at + 20, bytes);
    if (std::memcmp(data + at, "SAVE", 4) != 0) {
      rows += Get<uint32_t>(*bytes, at + 4);
      ++blocks;
      crc_of_crcs = Crc32c(&crc, sizeof(crc), crc_of_crcs);
    }
    at = payload + payload_bytes;
  }
}

}  // namespace testing
}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_TESTS_CC_TABLE_FILE_BYTES_H_
