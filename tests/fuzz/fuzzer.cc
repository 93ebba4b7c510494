// libFuzzer's entry: FUZZ_TARGET=slab build/fuzz/fuzzer tests/fuzz/corpus/slab
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "tests/cc/testing.h"
#include "tests/fuzz/targets.h"

namespace {

const sparse_emb::testing::FuzzTarget* target = nullptr;

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  const char* const name = std::getenv("FUZZ_TARGET");
  for (const auto& known : sparse_emb::testing::kFuzzTargets) {
    if (name != nullptr && std::string(name) == known.name) target = &known;
  }
  if (target != nullptr) return 0;
  std::fprintf(stderr, "FUZZ_TARGET must be one of");
  for (const auto& known : sparse_emb::testing::kFuzzTargets) {
    std::fprintf(stderr, " %s", known.name);
  }
  std::fprintf(stderr, ", got '%s'\n", name == nullptr ? "" : name);
  std::exit(1);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  target->run(data, size);
  std::fflush(stdout);
  if (sparse_emb::testing::HasFailure()) std::abort();
  return 0;
}
