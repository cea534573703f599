// An opened MoUE against the reference implementation of docs/method.md: choices, logits, losses,
// every gradient.
#include "support/torch_test.h"

#include "model/statistics.h"
#include "support/tolerances.h"
#include "support/torch_compare.h"
#include "support/torch_golden.h"
#include "train/balance.h"

using namespace moue;
using namespace moue::test;

namespace {

constexpr double kAlpha = 0.01, kKappa = 1.0, kEta = 0.1;  // of the recorded loss

PerSlot shares(const Pass& pass) {
  PerSlot f;
  for (const Routed& routed : pass.routed) {
    const at::Tensor share = routed.count_S.to(at::kDouble) / routed.count_S.sum().item<double>();
    f.emplace_back(share.data_ptr<double>(), share.data_ptr<double>() + share.numel());
  }
  return f;
}

// Sets v as backward will find it: from this pass's own counts, as the reference does.
void balance(const Model& model, Pass& pass) {
  const BalanceTarget target = balance_target(model.pool(), model.visibility(), kKappa, kEta);
  for (const auto& v : balance_gradient(model.pool(), target, shares(pass))) {
    pass.balance_v->push_back(at::tensor(v, at::kDouble).to(at::kFloat));
  }
}

// The gradients of lm_weight * loss + alpha * balance, by name on disk.
std::map<std::string, at::Tensor> backward(Model& model, const at::Tensor& tokens, double lm_weight,
                                           double alpha, bool detach) {
  const GoldenRows rows(tokens);
  Pass pass;
  pass.detach_trajectory = detach;
  pass.balance_v = std::make_shared<std::vector<at::Tensor>>();
  pass.balance_scale = alpha / static_cast<double>(model.pool().num_moe_layers() * tokens.numel());
  model.zero_grad();
  const at::Tensor loss = model.loss(rows.rows, rows.mask, rows.scale() * lm_weight, pass);
  balance(model, pass);
  loss.backward();
  model.finish_backward();
  return gradients(model);
}

}  // namespace

TEST_CASE("an opened MoUE computes the reference's numbers", "[peer][model]") {
  const std::string topology = GENERATE(from_range(golden_topologies()));
  INFO(topology);
  const SafetensorsFile expected(golden_moue(topology) / "expected.safetensors");
  const auto model = open_model(golden_moue(topology) / "model");
  const at::NoGradGuard no_grad;
  Pass pass;
  const at::Tensor logits = model->logits(read_tensor(expected, "tokens"), pass);
  CHECK(relative_error(logits, read_tensor(expected, "open.logits")) <= tolerance::kGolden);
  REQUIRE(pass.routed.size() == 6);
  for (size_t layer = 0; layer < pass.routed.size(); ++layer) {
    INFO("layer " << layer);
    const std::string name = "open.layers." + std::to_string(layer) + ".";
    const Routed& routed = pass.routed[layer];
    CHECK(routed.chosen_TK.to(at::kLong).equal(read_tensor(expected, name + "chosen")));
    CHECK(relative_error(routed.gate_TK, read_tensor(expected, name + "gate")) <=
          tolerance::kGolden);
    const at::Tensor probability = routed.z_TS.softmax(1);
    CHECK(relative_error(probability, read_tensor(expected, name + "probability")) <=
          tolerance::kGolden);
    CHECK(relative_error(routed.probability_S, probability.sum(0)) <= tolerance::kGolden);
    CHECK(routed.count_S.sum().item<int64_t>() == routed.chosen_TK.numel());
  }
  // Control: without the pool bias other slots are chosen.
  model->pool_bias().zero_();
  model->logits(read_tensor(expected, "tokens"), pass);
  bool differs = false;
  for (size_t layer = 0; layer < pass.routed.size(); ++layer) {
    const std::string name = "open.layers." + std::to_string(layer) + ".chosen";
    differs |= !pass.routed[layer].chosen_TK.to(at::kLong).equal(read_tensor(expected, name));
  }
  CHECK(differs);
}

TEST_CASE("losses are the reference's", "[peer][model]") {
  const std::string topology = GENERATE(from_range(golden_topologies()));
  const SafetensorsFile expected(golden_moue(topology) / "expected.safetensors");
  const auto model = open_model(golden_moue(topology) / "model");
  const GoldenRows rows(read_tensor(expected, "tokens"));
  const at::NoGradGuard no_grad;
  Pass pass;
  model->loss(rows.rows, rows.mask, 1.0, pass);
  CHECK(relative_error(pass.loss_sum.view({1}) / pass.num_targets,
                       read_tensor(expected, "open.lm_loss")) <= tolerance::kGolden);
  RouterSums sums{57, {}, {}};
  for (const Routed& routed : pass.routed) {
    const at::Tensor chosen = routed.count_S.to(at::kDouble);
    sums.chosen.emplace_back(chosen.data_ptr<double>(), chosen.data_ptr<double>() + chosen.numel());
    const double* probability = routed.probability_S.data_ptr<double>();
    sums.probability.emplace_back(probability, probability + chosen.numel());
  }
  for (const char* kappa : {"0.0", "0.5", "1.0"}) {
    for (const char* eta : {"0.0", "0.1", "1.0"}) {
      INFO("kappa " << kappa << " eta " << eta);
      const BalanceTarget target =
          balance_target(model->pool(), model->visibility(), std::stod(kappa), std::stod(eta));
      const double loss = balance_sums(model->pool(), target, shares_of(sums)).loss(std::stod(eta));
      const std::string name = std::string("open.balance_loss.kappa_") + kappa + ".eta_" + eta;
      CHECK(relative_error(at::tensor({loss}, at::kDouble), read_tensor(expected, name)) <=
            tolerance::kGolden);
    }
  }
}

TEST_CASE("every gradient is the reference's", "[peer][model]") {
  const std::string topology = GENERATE(from_range(golden_topologies()));
  INFO(topology);
  const SafetensorsFile expected(golden_moue(topology) / "expected.safetensors");
  const auto model = open_model(golden_moue(topology) / "model", {.train = true});
  const at::Tensor tokens = read_tensor(expected, "tokens");
  CHECK(compare_gradients(expected, "open.grad.", backward(*model, tokens, 1, kAlpha, false)) ==
        6 * 13 + 6);
  CHECK(compare_gradients(expected, "open.detach.grad.",
                          backward(*model, tokens, 1, kAlpha, true)) == 6 + 3);
  CHECK(compare_gradients(expected, "open.balance.grad.", backward(*model, tokens, 0, 1, false)) ==
        6 * 6 + 3);

  // Control: the detached trajectory gives other gradients of the keys than the full one.
  const auto detached = backward(*model, tokens, 1, kAlpha, true);
  CHECK(relative_error(detached.at(names::kKey), read_tensor(expected, "open.grad.key")) >
        100 * tolerance::kGoldenGradient);
}

TEST_CASE("calibration is the reference's", "[peer][measure]") {
  const std::string topology = GENERATE(from_range(golden_topologies()));
  INFO(topology);
  const SafetensorsFile expected(golden_moue(topology) / "expected.safetensors");
  const auto source = open_model(golden_moue(topology) / "source");
  const Pool pool = read_pool(Config::read(golden_moue(topology) / "model/config.json"));
  const GoldenRows rows(read_tensor(expected, "tokens"));
  const double eps = GENERATE(0.1, 0.9);
  const Statistics seen = collect_statistics(*source, &pool, eps, rows.rows, 3);
  CHECK(seen.tokens == 57);
  for (size_t layer = 0; layer < pool.slots.size(); ++layer) {
    INFO("layer " << layer << " eps " << eps);
    const std::string name = "calibrated.layers." + std::to_string(layer) + ".";
    const double error = relative_error(at::tensor(seen.beta[layer], at::kDouble),
                                        read_tensor(expected, name + "bias"));
    if (eps == 0.1)
      CHECK(error <= tolerance::kGolden);
    else
      CHECK(error > 100 * tolerance::kGolden);  // control: another quantile is another number
    CHECK(relative_error(at::tensor(seen.scale[layer], at::kDouble),
                         read_tensor(expected, name + "scale")) <= tolerance::kGolden);
  }
}
