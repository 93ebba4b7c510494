// What is fuzzed: functions that make something of any bytes, and mark the running test as failed
// (testing.h) where it is not what a plain model makes of them.
//
// fuzzer.cc lets libFuzzer choose the bytes; replay_test.cc runs those of the corpus in the unit
// tests.
#ifndef TF_SPARSE_EMB_TESTS_FUZZ_TARGETS_H_
#define TF_SPARSE_EMB_TESTS_FUZZ_TARGETS_H_

#include <cstddef>
#include <cstdint>
#include <string>

namespace sparse_emb {
namespace testing {

// Operations on a table of one storage, saves and loads among them, against std::unordered_map.
void FuzzStorage(const std::string& storage, const uint8_t* data, size_t size);

// The dedup of keys, and of those of several tables, against std::unordered_map.
void FuzzKeyDedup(const uint8_t* data, size_t size);

// Gathers and pools, and the gradients reduced per unique key, against plain loops.
void FuzzDuplicate(const uint8_t* data, size_t size);
void FuzzGradReduce(const uint8_t* data, size_t size);

// Reads bytes as the file of a table, or as those of a chain of saves. They are any bytes, or files
// that were saved and then changed, with checksums that agree again or not. A load must fail and
// leave the table as it was, or give a table that can be saved and loaded again.
void FuzzTableFile(const uint8_t* data, size_t size);
void FuzzTableChain(const uint8_t* data, size_t size);

struct FuzzTarget {
  const char* name;
  void (*run)(const uint8_t* data, size_t size);
};

inline constexpr FuzzTarget kFuzzTargets[] = {
    {"unordered_map", [](const uint8_t* d, size_t n) { FuzzStorage("unordered_map", d, n); }},
    {"open_addressing", [](const uint8_t* d, size_t n) { FuzzStorage("open_addressing", d, n); }},
    {"chained", [](const uint8_t* d, size_t n) { FuzzStorage("chained", d, n); }},
    {"slab", [](const uint8_t* d, size_t n) { FuzzStorage("slab", d, n); }},
    {"index", [](const uint8_t* d, size_t n) { FuzzStorage("index", d, n); }},
    {"key_dedup", &FuzzKeyDedup},
    {"duplicate", &FuzzDuplicate},
    {"grad_reduce", &FuzzGradReduce},
    {"table_file", &FuzzTableFile},
    {"table_chain", &FuzzTableChain},
};

}  // namespace testing
}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_TESTS_FUZZ_TARGETS_H_
