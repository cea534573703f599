// Our optimizer beside torch::optim::AdamW on the same gradients.
#include "support/torch_test.h"

#include <torch/optim/adamw.h>

#include "support/tolerances.h"
#include "train/optimizer.h"

namespace moue {
namespace {

constexpr int kSteps = 20;

// Largest difference of the weights after 20 steps, relative to the largest weight.
double difference(double our_decay, double our_lr_factor, double our_beta2) {
  const auto generator = at::detail::createCPUGenerator(7);
  const auto random = [&](double scale) {
    return at::randn({37, 11}, generator, at::TensorOptions().dtype(at::kFloat)) * scale;
  };
  const at::Tensor start = random(1.0);
  Parameter ours;
  ours.kind = ParameterKind::Matrix;
  ours.name = "w";
  ours.disk.push_back({"w", 0, {37, 11}, Dtype::F32, {}});
  ours.master = start.clone();
  ours.value = ours.master;
  ours.grad = at::zeros_like(start);
  std::vector<Parameter> parameters = {ours};
  Optimizer optimizer(parameters, {.weight_decay = our_decay, .beta2 = our_beta2, .clip = 0});

  at::Tensor theirs = start.clone().set_requires_grad(true);
  torch::optim::AdamW peer(
      {theirs}, torch::optim::AdamWOptions(1e-2).betas({0.9, 0.95}).eps(1e-8).weight_decay(0.1));
  for (int step = 0; step < kSteps; ++step) {
    const double lr = 1e-2 * (1 - 0.03 * step);
    const at::Tensor gradient = random(step % 3 == 0 ? 1e-3 : 1.0);
    parameters[0].grad.copy_(gradient);
    optimizer.update(lr * our_lr_factor, 1.0, {}, {});
    theirs.mutable_grad() = gradient.clone();
    static_cast<torch::optim::AdamWOptions&>(peer.param_groups()[0].options()).lr(lr);
    peer.step();
  }
  return ((parameters[0].master - theirs.detach()).abs().max() / theirs.detach().abs().max())
      .item<double>();
}

}  // namespace

TEST_CASE("twenty steps of AdamW are torch's", "[peer][optimizer]") {
  CHECK(difference(0.1, 1.0, 0.95) <= tolerance::kAdamw);
  constexpr double kFar = 100 * tolerance::kAdamw;
  CHECK(difference(0.0, 1.0, 0.95) > kFar);
  CHECK(difference(0.1, 1.01, 0.95) > kFar);
  CHECK(difference(0.1, 1.0, 0.99) > kFar);
}

}  // namespace moue
