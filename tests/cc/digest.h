#ifndef TF_SPARSE_EMB_TESTS_CC_DIGEST_H_
#define TF_SPARSE_EMB_TESTS_CC_DIGEST_H_

#include <string>

namespace sparse_emb {
namespace testing {

// The instruction set in use, and one hash over the bits of initial rows, pooled and max-pooled
// values, reduced gradients and updated rows.
std::string Digest();

}  // namespace testing
}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_TESTS_CC_DIGEST_H_
