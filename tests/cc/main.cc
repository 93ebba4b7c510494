// cc_tests [part of a test's name]...
// cc_tests --digest: see digest.h.
#include <cstdio>
#include <string>
#include <vector>

#include "tests/cc/digest.h"
#include "tests/cc/testing.h"

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (arguments == std::vector<std::string>{"--digest"}) {
    std::puts(sparse_emb::testing::Digest().c_str());
    return 0;
  }
  return sparse_emb::testing::RunTests(arguments);
}
