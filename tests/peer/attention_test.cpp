// Softmax attention beside whole matrices in float64: lengths around a block of queries, windows,
// sinks, shared keys, values of another width.
#include "support/torch_test.h"
//
#include "model/softmax_attention.h"
#include "support/tolerances.h"
#include "support/torch_blocks.h"

using namespace moue;
using namespace moue::test;

namespace {

struct Case {
  int64_t batch, heads, kv_heads, length, width, value_width, window;
  bool sinks;
};

const std::vector<Case> kCases{{1, 1, 1, 1, 4, 4, 0, false},    {2, 4, 2, 59, 8, 8, 0, false},
                               {1, 2, 2, 60, 8, 8, 0, true},    {1, 6, 2, 61, 20, 12, 0, false},
                               {2, 2, 1, 130, 16, 16, 0, true}, {1, 2, 1, 130, 16, 16, 1, true},
                               {1, 4, 2, 181, 8, 24, 7, false}, {1, 2, 2, 200, 8, 8, 64, true},
                               {1, 1, 1, 70, 8, 8, 500, false}};

std::vector<at::Tensor> inputs(const Case& c) {
  return {random_tensor({c.batch, c.heads, c.length, c.width}, 1),
          random_tensor({c.batch, c.kv_heads, c.length, c.width}, 2),
          random_tensor({c.batch, c.kv_heads, c.length, c.value_width}, 3),
          c.sinks ? random_tensor({c.heads}, 4) : at::Tensor()};
}

BlockErrors errors_of(const Case& c, int64_t wanted_window, bool wanted_sinks,
                      at::ScalarType dtype = at::kFloat) {
  const double scale = 0.4;
  return compare_blocks(
      [&](const std::vector<at::Tensor>& x) {
        return softmax_attention(x[0], x[1], x[2], scale, c.window, x[3]);
      },
      [&](const std::vector<at::Tensor>& x) {
        return plain_attention(x[0], x[1], x[2], scale, wanted_window,
                               wanted_sinks ? x[3] : at::Tensor());
      },
      inputs(c), dtype);
}

}  // namespace

TEST_CASE("attention and its gradients equal whole matrices") {
  for (const Case& c : kCases) {
    INFO(c.length << " tokens, window " << c.window << ", sinks " << c.sinks);
    const BlockErrors errors = errors_of(c, c.window, c.sinks);
    CHECK(errors.output < tolerance::kBlock);
    CHECK(errors.worst_gradient() < tolerance::kBlockGradient);
  }
}

TEST_CASE("a window or a sink left out of attention is noticed") {
  const Case windowed = kCases[6], sunk = kCases[4];
  CHECK(errors_of(windowed, windowed.window + 1, false).output > tolerance::kVisibleBlock);
  CHECK(errors_of(sunk, 0, false).output > tolerance::kVisibleBlock);
}
