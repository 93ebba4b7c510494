#include "cc/lib/cpu_dispatch.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace sparse_emb {
namespace {

Isa DetectIsa() {
  Isa best = Isa::kBaseline;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2")) best = Isa::kAvx2;
  if (best == Isa::kAvx2 && __builtin_cpu_supports("avx512f") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl")) {
    best = Isa::kAvx512;
  }
#endif
  if (const char* limit = std::getenv("SPARSE_EMB_ISA")) {
    for (Isa isa : {Isa::kBaseline, Isa::kAvx2}) {
      if (std::strcmp(limit, IsaName(isa)) == 0) best = std::min(best, isa);
    }
  }
  return best;
}

}  // namespace

Isa BestIsa() {
  static const Isa isa = DetectIsa();
  return isa;
}

const char* IsaName(Isa isa) {
  switch (isa) {
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kBaseline:
      break;
  }
  return "baseline";
}

}  // namespace sparse_emb
