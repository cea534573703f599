// Which parameters move, decay and are clipped; steps that are left out.
#include "support/torch_test.h"

#include "support/tolerances.h"
#include "train/optimizer.h"

#include <cmath>
#include <limits>

namespace moue {
namespace {

Parameter make(const std::string& name, ParameterKind kind, std::vector<int64_t> shape) {
  Parameter parameter;
  parameter.name = name;
  parameter.kind = kind;
  parameter.moe_layer = 0;
  parameter.master = at::full(shape, 2.0, at::kFloat);
  parameter.value = parameter.master;
  parameter.grad = at::zeros(shape, at::kFloat);
  parameter.disk.push_back({name, 0, shape, Dtype::F32, {}});
  return parameter;
}

// One of each kind. Layer 0 has two home slots and three foreign ones.
std::vector<Parameter> one_of_each() {
  return {make("lm_head.weight", ParameterKind::Matrix, {3, 5}),
          make("norm.weight", ParameterKind::Norm, {5}),
          make("experts", ParameterKind::Expert, {2, 3, 5}),
          make(names::router_weight(0), ParameterKind::ForeignRow, {3, 5}),
          make(names::router_bias(0), ParameterKind::RouterBias, {3}),
          make(names::router_scale(0), ParameterKind::RouterScale, {3}),
          make(names::trajectory_gain(0), ParameterKind::Gain, {4}),
          make(names::kKey, ParameterKind::Trajectory, {2, 4})};
}

const Visibility kOneClosed = {{1, 1, 1, 0, 0.5}};

double farthest(const at::Tensor& a, double value) {
  return (a - value).abs().max().item<double>();
}

}  // namespace

TEST_CASE("only matrices, experts and open foreign rows decay", "[optimizer]") {
  std::vector<Parameter> parameters = one_of_each();
  Optimizer optimizer(parameters, {.weight_decay = 0.5});
  optimizer.update(0.1, 0, {}, kOneClosed);  // no gradient: what moves is decay
  const double decayed = 2 * (1 - 0.1 * 0.5);
  for (const Parameter& parameter : parameters) {
    CAPTURE(parameter.name);
    if (parameter.kind == ParameterKind::ForeignRow) {
      CHECK(farthest(parameter.master[0], decayed) < 1e-6);
      CHECK(farthest(parameter.master[1], 2) == 0);  // closed
      CHECK(farthest(parameter.master[2], decayed) < 1e-6);
    } else if (parameter.kind == ParameterKind::Matrix || parameter.kind == ParameterKind::Expert) {
      CHECK(farthest(parameter.master, decayed) < 1e-6);
    } else {
      CHECK(farthest(parameter.master, 2) == 0);
    }
  }
}

TEST_CASE("the warm-up moves the trajectory alone, and off all others", "[optimizer]") {
  const Moving moving = GENERATE(Moving{true, false}, Moving{false, true}, Moving{true, true});
  std::vector<Parameter> parameters = one_of_each();
  for (Parameter& parameter : parameters) parameter.grad.fill_(1.0);
  Optimizer optimizer(parameters, {});
  const double norm = optimizer.gradient_norm(moving);
  optimizer.update(0.1, norm, moving, kOneClosed);
  double squares = 0;
  for (size_t i = 0; i < parameters.size(); ++i) {
    CAPTURE(parameters[i].name, moving.trajectory, moving.others);
    const bool moves = moving(parameters[i]);
    CHECK((farthest(parameters[i].master, 2) > 0.05) == moves);
    CHECK(optimizer.moments()[i].updates == (moves ? 1 : 0));
    if (moves) squares += static_cast<double>(parameters[i].grad.numel());
  }
  CHECK(norm == Approx(std::sqrt(squares)));
  CHECK(Moving{true, false}(parameters[6]));
  CHECK(Moving{true, false}(parameters[7]));
  CHECK_FALSE(Moving{true, false}(parameters[3]));
}

TEST_CASE("new tensors have their own learning rate", "[optimizer]") {
  std::vector<Parameter> parameters = one_of_each();
  for (Parameter& parameter : parameters) parameter.grad.fill_(1.0);
  Optimizer optimizer(parameters, {.weight_decay = 0, .clip = 0, .new_lr_multiplier = 3});
  optimizer.update(0.1, 1, {}, kOneClosed);  // the first AdamW step has the size of lr
  CHECK(farthest(parameters[0].master, 1.9) < 1e-5);
  CHECK(farthest(parameters[2].master, 1.9) < 1e-5);
  for (size_t i = 3; i < parameters.size(); ++i) CHECK(farthest(parameters[i].master, 1.7) < 1e-5);
}

TEST_CASE("clipping scales the gradient to the norm", "[optimizer]") {
  const auto first_moment = [](double clip, double gradient) {
    std::vector<Parameter> parameters = {make("w", ParameterKind::Matrix, {3, 5})};
    parameters[0].grad.fill_(gradient);
    Optimizer optimizer(parameters, {.beta1 = 0.5, .clip = clip});
    optimizer.update(0.1, optimizer.gradient_norm({}), {}, kOneClosed);
    return optimizer.moments()[0].first.norm().item<double>() / 0.5;  // of the gradient used
  };
  CHECK(first_moment(1.0, 4.0) == Approx(1.0));
  CHECK(first_moment(1.0, 0.01) == Approx(0.01 * std::sqrt(15.0)));
  CHECK(first_moment(0.0, 4.0) == Approx(4.0 * std::sqrt(15.0)));
}

TEST_CASE("the norm of the gradient shows what is not finite", "[optimizer]") {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    std::vector<Parameter> parameters = one_of_each();
    Optimizer optimizer(parameters, {});
    CHECK(std::isfinite(optimizer.gradient_norm({})));
    parameters[2].grad[1][0][3] = bad;
    CHECK_FALSE(std::isfinite(optimizer.gradient_norm({})));
    CHECK(std::isfinite(optimizer.gradient_norm({true, false})));  // experts do not move
  }
}

TEST_CASE("twenty skipped steps in a row are hopeless", "[optimizer]") {
  Skips skips;
  for (int i = 0; i < 19; ++i) skips.count(true);
  CHECK_FALSE(skips.hopeless());
  skips.count(false);
  CHECK(skips.in_a_row == 0);
  for (int i = 0; i < 20; ++i) skips.count(true);
  CHECK(skips.hopeless());
  CHECK(skips.total == 39);
}

}  // namespace moue
