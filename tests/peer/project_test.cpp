// Products by whichever way is the fastest, beside torch's in float64.
#include "support/torch_test.h"
//
#include <ATen/Parallel.h>

#include "model/product.h"
#include "support/tolerances.h"
#include "support/torch_blocks.h"
#include "support/torch_compare.h"

using namespace moue;
using namespace moue::test;

namespace {

using Tensors = std::vector<at::Tensor>;

at::Tensor projected(const Tensors& in) { return project(in[0], in[1], in[2]); }
at::Tensor plain(const Tensors& in) { return at::linear(in[0], in[1], in[2]); }
at::Tensor without_bias(const Tensors& in) { return at::linear(in[0], in[1]); }

Tensors inputs(int64_t rows, int64_t width, int64_t out, bool biased) {
  return {random_tensor({rows, width}, 1), random_tensor({out, width}, 2),
          biased ? random_tensor({out}, 3) : at::Tensor()};
}

}  // namespace

TEST_CASE("projections and their gradients equal torch's") {
  for (const bool biased : {false, true}) {
    const Tensors in = inputs(203, 70, 45, biased);
    const BlockErrors errors = compare_blocks(projected, plain, in);
    CHECK(errors.output < tolerance::kBlock);
    CHECK(errors.worst_gradient() < tolerance::kBlockGradient);
    const BlockErrors rounded = compare_blocks(projected, plain, in, at::kBFloat16);
    CHECK(rounded.output < tolerance::kBlockBFloat16);
    CHECK(rounded.worst_gradient() < tolerance::kBlockBFloat16);
  }
  CHECK(compare_blocks(projected, without_bias, inputs(203, 70, 45, true)).output >
        tolerance::kVisibleBlock);
}

TEST_CASE("products do not depend on the threads") {
  const Tensors in = inputs(4001, 96, 130, false);
  const at::Tensor x = in[0].to(at::kFloat), weight = in[1].to(at::kFloat);
  const auto run = [&](int threads) {
    at::set_num_threads(threads);
    const at::Tensor out = at::empty({4001, 130}), grad = at::ones({130, 96});
    multiply(out, x, weight.t());
    add_product(grad, out, x);
    return std::pair(out, grad);
  };
  const int before = at::get_num_threads();
  const auto [out, grad] = run(1);
  const auto [again, grad_again] = run(2);
  at::set_num_threads(before);
  CHECK(at::equal(out, again));
  CHECK(at::equal(grad, grad_again));
  CHECK(relative_error(grad.to(at::kDouble), 1 + out.to(at::kDouble).t().mm(x.to(at::kDouble))) <
        tolerance::kBlock);
}

TEST_CASE("operands that are no rows are multiplied all the same") {
  const at::Tensor x = random_tensor({20, 30, 2}, 1).to(at::kFloat).select(2, 1);
  const at::Tensor weight = random_tensor({9, 30}, 2).to(at::kFloat);
  at::Tensor out = at::empty({20, 9});
  multiply(out, x, weight.t());
  const at::Tensor wanted = x.to(at::kDouble).mm(weight.to(at::kDouble).t());
  CHECK(relative_error(out.to(at::kDouble), wanted) < tolerance::kBlock);
  CHECK(relative_error(project(x, weight).to(at::kDouble), wanted) < tolerance::kBlock);
  CHECK_FALSE(relative_error(project(x, weight.flip(0)).to(at::kDouble), wanted) <
              tolerance::kVisibleBlock);
}
