// The head's cross-entropy by chunks, with bias and divisor, and dense blocks, beside plain
// formulations in float64.
#include "support/torch_test.h"
//
#include "model/dense.h"
#include "model/ops.h"
#include "support/tolerances.h"
#include "support/torch_blocks.h"
#include "support/torch_compare.h"

using namespace moue;
using namespace moue::test;

namespace {

constexpr int64_t kTokens = 45, kWidth = 24, kVocabulary = 61;
constexpr double kScale = 0.7;

at::Tensor targets() {
  at::Tensor target = at::arange(kTokens, at::kLong) * 7 % kVocabulary;
  target[3] = -1;
  return target;
}

struct Errors {
  double loss, logits, gradient;
};

Errors errors_of(bool biased, double divisor, double wanted_divisor, at::ScalarType dtype) {
  const auto leaf = [&](const at::Tensor& x, at::ScalarType to) {
    return x.to(dtype).to(to, false, true).requires_grad_(true);
  };
  const at::Tensor x = random_tensor({kTokens, kWidth}, 1),
                   w = random_tensor({kVocabulary, kWidth}, 2), b = random_tensor({kVocabulary}, 3);
  const at::Tensor ours = leaf(x, dtype), plain = leaf(x, at::kDouble),
                   weight = leaf(w, at::kDouble), bias = leaf(b, at::kDouble);
  Head head{w.to(dtype), {}, at::zeros({kVocabulary, kWidth}), {}, divisor};
  if (biased) {
    head.bias = b.to(dtype);
    head.bias_grad = at::zeros({kVocabulary});
  }
  at::Tensor token_loss;
  const at::Tensor loss = linear_cross_entropy(ours, head, targets(), kScale, token_loss);
  (2 * loss).backward();

  at::Tensor logits = at::matmul(plain, weight.t());
  if (biased) logits = logits + bias;
  logits = logits / wanted_divisor;
  const at::Tensor counted = targets().ge(0).to(at::kDouble);
  const at::Tensor chosen =
      logits.log_softmax(1).gather(1, targets().clamp_min(0).unsqueeze(1)).squeeze(1);
  const at::Tensor wanted = -(chosen * counted).sum() * kScale;
  (2 * wanted).backward();

  double gradient = std::max(relative_error(ours.grad(), plain.grad()),
                             relative_error(head.weight_grad, weight.grad()));
  if (biased) gradient = std::max(gradient, relative_error(head.bias_grad, bias.grad()));
  return {relative_error(loss.detach(), wanted.detach()),
          relative_error(logits_of(ours, head).detach(), logits.detach()), gradient};
}

}  // namespace

TEST_CASE("the head agrees with its definition", "[peer][model]") {
  for (const bool biased : {false, true}) {
    for (const double divisor : {1.0, 2.5}) {
      INFO("bias " << biased << " divisor " << divisor);
      const Errors errors = errors_of(biased, divisor, divisor, at::kFloat);
      CHECK(errors.loss <= tolerance::kBlock);
      CHECK(errors.logits <= tolerance::kBlock);
      CHECK(errors.gradient <= tolerance::kBlockGradient);
      const Errors narrow = errors_of(biased, divisor, divisor, at::kBFloat16);
      CHECK(narrow.loss <= tolerance::kBlockBFloat16);
      CHECK(narrow.gradient <= tolerance::kBlockBFloat16);
    }
  }
  // Control: another divisor is another function.
  const Errors other = errors_of(true, 2.5, 2, at::kFloat);
  CHECK(other.loss > tolerance::kVisibleBlock);
  CHECK(other.gradient > tolerance::kVisibleBlock);
}

TEST_CASE("dense blocks and the shared expert's share", "[peer][model]") {
  const int64_t F = 28;
  const std::vector<at::Tensor> in{
      random_tensor({kTokens, kWidth}, 1), random_tensor({2 * F, kWidth}, 2, 0.4),
      random_tensor({kWidth, F}, 3, 0.4), random_tensor({1, kWidth}, 4, 0.4)};
  for (const bool mixed : {false, true}) {
    for (const Activation kind : {Activation::Silu, Activation::Clamped}) {
      const ActivationSpec activation{kind, 1.702, 2.5};
      const BlockFunction ours = [&](const std::vector<at::Tensor>& x) {
        return dense_ffn(x[0], activation, {x[1], x[2], mixed ? x[3] : at::Tensor()});
      };
      const BlockFunction plain = [&](const std::vector<at::Tensor>& x) {
        at::Tensor gate = at::matmul(x[0], x[1].slice(0, 0, F).t()),
                   up = at::matmul(x[0], x[1].slice(0, F).t());
        if (kind == Activation::Clamped) {
          const at::Tensor limit = at::tensor(2.5, at::kDouble);
          gate = at::minimum(gate, limit);
          up = at::maximum(at::minimum(up, limit), -limit) + 1;
        }
        const double alpha = kind == Activation::Clamped ? 1.702 : 1;
        const at::Tensor y = at::matmul(gate * at::sigmoid(alpha * gate) * up, x[2].t());
        return mixed ? y * at::sigmoid(at::matmul(x[0], x[3].t())) : y;
      };
      std::vector<at::Tensor> used = in;
      if (!mixed) used[3] = at::Tensor();
      INFO("mixed " << mixed << " clamped " << (kind == Activation::Clamped));
      const BlockErrors errors = compare_blocks(ours, plain, used);
      CHECK(errors.output <= tolerance::kBlock);
      CHECK(errors.worst_gradient() <= tolerance::kBlockGradient);
      const BlockErrors narrow = compare_blocks(ours, plain, used, at::kBFloat16);
      CHECK(narrow.output <= tolerance::kBlockBFloat16);
      // The gradient jumps at a limit, and a rounding decides on which side a number stands.
      if (kind == Activation::Silu) CHECK(narrow.worst_gradient() <= tolerance::kBlockBFloat16);
      for (size_t i = 1; i < (mixed ? 4 : 3); ++i) {
        const BlockFunction changed = [&](std::vector<at::Tensor> x) {
          x[i] = x[i].flip(i == 3 ? 1 : 0);
          return ours(x);
        };
        CHECK(compare_blocks(changed, plain, used).output > tolerance::kVisibleBlock);
      }
    }
  }
}
