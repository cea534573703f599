// Which parameters move, decay and are clipped; steps that are left out.
#include "support/torch_test.h"

#include "support/tolerances.h"
#include "train/optimizer.h"
#include "train/skips.h"

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

TEST_CASE("a group has its own rate and decay, and starts at its step", "[optimizer]") {
  std::vector<Parameter> parameters = one_of_each();
  for (Parameter& parameter : parameters) {
    parameter.grad.fill_(1.0);
    parameter.disk[0].slice.rows = parameter.value.numel();
    parameter.disk[0].slice.columns = 1;
  }
  TrainOptions options;
  options.groups = {{"*.weight", 2.0, -1, false, 0},
                    {"lm_head.*", 3.0, 0.25, false, 0},  // the last match decides
                    {"experts", 1.0, -1, false, 5}};
  Optimizer optimizer(parameters, {.weight_decay = 0, .clip = 0}, groups_of(parameters, options));
  const Moving before{true, true, 4}, after{true, true, 5};
  CHECK_FALSE(optimizer.moves(parameters[2], before));
  CHECK(optimizer.moves(parameters[2], after));
  const double all = optimizer.gradient_norm(after), some = optimizer.gradient_norm(before);
  CHECK(all * all - some * some == Approx(30));  // the elements of the experts
  optimizer.update(0.1, 1, before, kOneClosed);
  CHECK(farthest(parameters[0].master, 2 - 0.3 - 0.3 * 0.25 * 2) < 1e-5);
  CHECK(farthest(parameters[1].master, 2 - 0.2) < 1e-5);
  CHECK(farthest(parameters[2].master, 2) == 0);
  CHECK(farthest(parameters[4].master, 2 - 0.1) < 1e-5);
  CHECK(optimizer.moments()[2].updates == 0);
  optimizer.update(0.1, 1, after, kOneClosed);
  CHECK(farthest(parameters[2].master, 2 - 0.1) < 1e-5);
}

TEST_CASE("two rates within one tensor in memory", "[optimizer]") {
  std::vector<Parameter> parameters = {make("qkv", ParameterKind::Matrix, {5, 3})};
  parameters[0].grad.fill_(1.0);
  parameters[0].disk = {{"q", 0, {2, 3}, Dtype::F32, {}}, {"k", 6, {3, 3}, Dtype::F32, {}}};
  parameters[0].disk[0].slice.rows = 2;
  parameters[0].disk[1].slice.rows = 3;
  for (DiskTensor& disk : parameters[0].disk) disk.slice.columns = 3;
  TrainOptions options;
  options.groups = {{"k", 4.0, -1, false, 0}};
  Optimizer optimizer(parameters, {.weight_decay = 0, .clip = 0}, groups_of(parameters, options));
  optimizer.update(0.1, 1, {}, {});
  CHECK(farthest(parameters[0].master.narrow(0, 0, 2), 1.9) < 1e-5);
  CHECK(farthest(parameters[0].master.narrow(0, 2, 3), 1.6) < 1e-5);

  options.groups[0].start_step = 7;
  std::string message;
  try {
    groups_of(parameters, options);
  } catch (const std::exception& error) {
    message = error.what();
  }
  CHECK_THAT(message, Catch::Contains("qkv would start at steps 0 and 7"));
}

TEST_CASE("patterns", "[optimizer]") {
  CHECK(matches("*.experts.*.w1.weight", "model.layers.0.mlp.experts.31.w1.weight"));
  CHECK(matches("*", ""));
  CHECK(matches("a*b*c", "a-b-b-c"));
  CHECK(matches("layer.?", "layer.7"));
  CHECK_FALSE(matches("layer.?", "layer.17"));
  CHECK_FALSE(matches("a*b", "a-b-c"));
  CHECK_FALSE(matches("", "a"));
  CHECK_FALSE(matches("moue.*", "model.norm.weight"));
}

TEST_CASE("the window judges by its median and takes no infinities", "[optimizer]") {
  Window window;
  for (size_t i = 0; i + 1 < Window::kLeast; ++i) window.add(1.0 + 0.01 * static_cast<double>(i));
  CHECK_FALSE(window.stands_out(1e9, 5));  // too little to judge by
  window.add(1.0);
  CHECK(window.stands_out(10, 5));
  CHECK_FALSE(window.stands_out(4, 5));
  CHECK_FALSE(window.stands_out(10, 0));  // off
  const double mean = window.mean();
  window.add(std::numeric_limits<double>::quiet_NaN());
  window.add(std::numeric_limits<double>::infinity());
  CHECK(window.mean() == mean);
  for (int i = 0; i < 200; ++i) window.add(2.0);
  CHECK(window.values.size() == Window::kSize);
  CHECK_FALSE(window.stands_out(9, 5));
  CHECK(window.stands_out(11, 5));
}

TEST_CASE("skips are counted in all and in a row", "[optimizer]") {
  Skips skips;
  for (int i = 0; i < 19; ++i) skips.count(true, i < 4);
  CHECK(skips.in_a_row == 19);
  skips.count(false, false);
  CHECK(skips.in_a_row == 0);
  skips.count(true, false);
  CHECK(skips.total == 20);
  CHECK(skips.spikes == 4);
}

}  // namespace moue
