// One binary for every x86-64: loops over row elements are compiled three times, for the baseline,
// AVX2 and AVX-512, and the copy to run is chosen once, when the library starts.
//
//   RunOnBestIsa([&]() SPARSE_EMB_INLINE_LAMBDA { for (...) y[i] += x[i]; });
//   RunOnBestIsa(dim, [&](auto dim) SPARSE_EMB_INLINE_LAMBDA { for (d < dim) ... });
//
// The second form also compiles copies for the usual widths, in which `dim` is a constant.
//
// All that the loop calls must be SPARSE_EMB_INLINE too, otherwise it runs as baseline code. The
// copies give the same bits: the build forbids the fused multiply-add (-ffp-contract=off), and sums
// over a row have a fixed order (vector_ops.h).
#ifndef TF_SPARSE_EMB_CC_LIB_CPU_DISPATCH_H_
#define TF_SPARSE_EMB_CC_LIB_CPU_DISPATCH_H_

#include <cstdint>
#include <type_traits>

#define SPARSE_EMB_INLINE inline __attribute__((always_inline))
#define SPARSE_EMB_INLINE_LAMBDA __attribute__((always_inline))

namespace sparse_emb {

enum class Isa { kBaseline, kAvx2, kAvx512 };

// The best instruction set of this processor; the environment variable SPARSE_EMB_ISA
// ("baseline", "avx2" or "avx512") lowers it, for tests and benchmarks.
Isa BestIsa();

const char* IsaName(Isa isa);

#if defined(__x86_64__)
template <class Loop>
__attribute__((target("avx2"), noinline)) void RunOnAvx2(const Loop& loop) {
  loop();
}
template <class Loop>
__attribute__((target("avx2,avx512f,avx512dq,avx512bw,avx512vl"), noinline)) void RunOnAvx512(
    const Loop& loop) {
  loop();
}
#endif

// The widest of the usual widths.
inline constexpr int64_t kWidestConstant = 64;

template <int64_t value>
using Constant = std::integral_constant<int64_t, value>;

template <class Loop>
void RunOnBestIsa(const Loop& loop) {
#if defined(__x86_64__)
  switch (BestIsa()) {
    case Isa::kAvx512:
      return RunOnAvx512(loop);
    case Isa::kAvx2:
      return RunOnAvx2(loop);
    case Isa::kBaseline:
      break;
  }
#endif
  loop();
}

template <class Loop>
void RunOnBestIsa(int64_t dim, const Loop& loop) {
  switch (dim) {
    case 16:
      return RunOnBestIsa([&]() SPARSE_EMB_INLINE_LAMBDA { loop(Constant<16>()); });
    case 32:
      return RunOnBestIsa([&]() SPARSE_EMB_INLINE_LAMBDA { loop(Constant<32>()); });
    case 64:
      return RunOnBestIsa([&]() SPARSE_EMB_INLINE_LAMBDA { loop(Constant<64>()); });
    default:
      return RunOnBestIsa([&]() SPARSE_EMB_INLINE_LAMBDA { loop(dim); });
  }
}

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_CPU_DISPATCH_H_
