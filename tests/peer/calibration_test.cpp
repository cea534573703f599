// Calibration under every family's rule: the formulas of docs/method.md section 4 in double, and
// that opening a calibrated slot changes as many tokens as was asked for.
#include "support/torch_test.h"

#include "core/philox.h"
#include "model/router.h"
#include "model/statistics.h"
#include "support/tolerances.h"

using namespace moue;

namespace {

constexpr int64_t kLayers = 2, kExperts = 8, kWidth = 12, kChosen = 2, kTokens = 400;

at::Tensor drawn(std::vector<int64_t> shape, uint64_t seed, double scale = 1) {
  at::Tensor x = at::empty(shape, at::kDouble);
  for (int64_t i = 0; i < x.numel(); ++i) {
    const auto draw = philox(seed, {static_cast<uint32_t>(i), 0, 0, 0})[0];
    x.data_ptr<double>()[i] = scale * (draw / 2147483648.0 - 1);
  }
  return x.to(at::kFloat);
}

// Every expert of both layers in each, own ones first.
Pool shared_pool() {
  Pool pool;
  pool.experts_per_layer = kExperts;
  pool.moe_layers = {0, 1};
  for (int32_t layer = 0; layer < kLayers; ++layer) {
    pool.slots.emplace_back();
    for (int32_t i = 0; i < kLayers * kExperts; ++i)
      pool.slots.back().push_back((layer * kExperts + i) % (kLayers * kExperts));
    for (int32_t expert = 0; expert < kExperts; ++expert) pool.home.push_back({layer, expert});
  }
  return pool;
}

// Routers on random inputs, without the rest of a model.
class Routers : public Model {
 public:
  explicit Routers(const RouterSpec& rule) : pool_(shared_pool()) {
    spec_.experts = kExperts;
    spec_.experts_per_token = kChosen;
    spec_.width = kWidth;
    spec_.moe.assign(kLayers, true);
    spec_.router = rule;
    for (auto& slots : pool_.slots) slots.resize(kExperts);
    visibility_ = open_visibility(pool_);
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      const auto seed = static_cast<uint64_t>(10 * layer);
      rows_.push_back(drawn({kExperts, kWidth}, seed));
      input_.push_back(drawn({kTokens, kWidth}, seed + 1, 2));
      bias_.push_back(drawn({kExperts}, seed + 2, rule.bias ? 1 : 0));
      correction_.push_back(rule.correction ? drawn({kExperts}, seed + 3, 0.3) : at::Tensor());
    }
  }

  const ModelSpec& spec() const override { return spec_; }
  const Pool& pool() const override { return pool_; }
  bool is_moue() const override { return false; }
  at::Tensor loss(const at::Tensor&, const at::Tensor&, double, Pass& pass) override {
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      const Choice choice = choose(inputs(layer), spec_.router, kChosen, layer, pass);
      pass.observer({layer, input_[layer], input_[layer], &choice.routed});
    }
    pass.loss_sum = at::zeros({}, at::kDouble);
    return pass.loss_sum;
  }
  const Visibility& visibility() const override { return visibility_; }
  at::Tensor correction(int64_t layer) override { return correction_[layer]; }
  at::Tensor expert_outputs(const MoeView&) override { return at::ones({kTokens, kChosen, 1}); }
  at::Tensor home_router_row(int64_t p) override { return rows_[p / kExperts][p % kExperts]; }
  double home_router_bias(int64_t p) override {
    return bias_[p / kExperts][p % kExperts].item<double>();
  }
  void set_slot(int64_t, int64_t, int64_t, double) override {}

  at::Tensor logits(const at::Tensor&, Pass&) override { return {}; }
  void finish_backward() override {}
  void set_visibility(const Visibility&) override {}
  at::Tensor pool_bias() override { return {}; }
  std::vector<Parameter>& parameters() override { return parameters_; }
  void zero_grad() override {}
  void set_moving(const std::function<bool(const Parameter&)>&) override {}
  void refresh_values() override {}

  RouterInputs inputs(int64_t layer) const {
    RouterInputs in;
    in.home_TN = at::linear(input_[layer], rows_[layer], bias_[layer]);
    in.log_visibility = in.pool_bias = at::zeros({kExperts}, at::kFloat);
    in.correction = correction_[layer];
    return in;
  }

  // The same with one foreign slot: expert `at` of the other layer.
  RouterInputs with_foreign(int64_t layer, int64_t at, double beta, double correction) const {
    RouterInputs in = inputs(layer);
    in.foreign_TS = at::linear(input_[layer], rows_[1 - layer].narrow(0, at, 1));
    in.beta = at::full({1}, beta, at::kFloat);
    in.scale = at::ones({1}, at::kFloat);
    in.log_visibility = in.pool_bias = at::zeros({kExperts + 1}, at::kFloat);
    if (in.correction.defined())
      in.correction = at::cat({in.correction, at::full({1}, correction, at::kFloat)});
    return in;
  }

 private:
  ModelSpec spec_;
  Pool pool_;
  Visibility visibility_;
  std::vector<at::Tensor> rows_, input_, bias_, correction_;
  std::vector<Parameter> parameters_;
};

RouterSpec grouped(RouterSpec rule, GroupScore score) {
  rule.groups = 4;
  rule.kept_groups = 2;
  rule.group_score = score;
  return rule;
}

struct Named {
  const char* name;
  RouterSpec rule;
};

std::vector<Named> rules() {
  RouterSpec plain, sigmoid, biased, sparse;
  sigmoid.score = RouterScore::Sigmoid;
  sigmoid.correction = sigmoid.float32_logits = true;
  biased.score = RouterScore::Chosen;
  biased.bias = true;
  sparse.score = RouterScore::Sparse;
  sparse.jitter = 0.01;
  return {{"mixtral", plain},
          {"deepseek_v2", grouped(plain, GroupScore::Best)},
          {"deepseek_v3", grouped(sigmoid, GroupScore::SumOfTwo)},
          {"minimax_m2", sigmoid},
          {"gpt_oss", biased},
          {"phimoe", sparse}};
}

at::Tensor chosen(const RouterInputs& in, const RouterSpec& rule) {
  Pass pass;
  return choose(in, rule, kChosen, 0, pass).routed.chosen_TK;
}

// What slots are chosen by, of one token: home slots in all groups.
double key(const RouterSpec& rule, double z, double correction) {
  return rule.score == RouterScore::Sigmoid ? 1 / (1 + std::exp(-z)) + correction : z;
}

// The wanted value of beta or c, from the kernel's own choices.
double calibrated(const Routers& routers, const RouterSpec& rule, int64_t layer, int64_t at,
                  double eps, double beta, double correction) {
  const RouterInputs in = routers.with_foreign(layer, at, beta, correction);
  const at::Tensor home = in.home_TN.to(at::kDouble), foreign = in.foreign_TS.to(at::kDouble);
  const at::Tensor closed = chosen(routers.inputs(layer), rule);
  std::vector<double> delta;
  for (int64_t t = 0; t < kTokens; ++t) {
    const int64_t last = closed[t][kChosen - 1].item<int64_t>();
    const double own = in.correction.defined() ? in.correction[last].item<double>() : 0;
    delta.push_back(key(rule, foreign[t][0].item<double>() + beta, correction) -
                    key(rule, home[t][last].item<double>(), own));
  }
  std::sort(delta.begin(), delta.end());
  const auto rank = static_cast<int64_t>(std::ceil((1 - eps / kExperts) * kTokens));
  return (rule.correction ? correction : beta) - delta[rank - 1];
}

}  // namespace

TEST_CASE("calibration in the units of selection", "[peer][measure]") {
  for (const auto& [name, rule] : rules()) {
    INFO(name);
    Routers routers(rule);
    const Pool plan = shared_pool();
    const double eps = 0.16;  // 2 % for each of eight foreign slots: eight tokens
    const Statistics seen =
        collect_statistics(routers, &plan, eps, at::zeros({1, kTokens + 1}, at::kLong), 1);
    CHECK(seen.correction.size() == (rule.correction ? size_t{kLayers} : size_t{0}));
    bool other_eps_differs = false;
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      for (int64_t at = 0; at < kExperts; ++at) {
        const double beta = routers.home_router_bias((1 - layer) * kExperts + at);
        const at::Tensor corrections = routers.correction(1 - layer);
        const double start = corrections.defined() ? corrections[at].item<double>() : 0;
        const double c = rule.correction ? seen.correction[layer][at] : 0;
        const double moved = rule.correction ? c : seen.beta[layer][at];
        CHECK(moved == Approx(calibrated(routers, rule, layer, at, eps, beta, start)).margin(1e-5));
        other_eps_differs =
            other_eps_differs ||
            std::abs(moved - calibrated(routers, rule, layer, at, 4 * eps, beta, start)) > 1e-2;
        if (rule.correction) CHECK(seen.beta[layer][at] == beta);

        // Opened alone, the slot takes eight tokens; the one at the quantile may go either way.
        const at::Tensor open =
            chosen(routers.with_foreign(layer, at, seen.beta[layer][at], c), rule);
        const int64_t taken = open.eq(kExperts).sum().item<int64_t>();
        CHECK(std::abs(taken - 8) <= 1);
        const at::Tensor uncalibrated =
            chosen(routers.with_foreign(layer, at, beta + 1, start + 0.2), rule);
        CHECK(uncalibrated.eq(kExperts).sum().item<int64_t>() > 9);  // control
      }
    }
    CHECK(other_eps_differs);
  }
}

TEST_CASE("margins are between candidates of the choice", "[peer][measure]") {
  for (const auto& [name, rule] : rules()) {
    INFO(name);
    Routers routers(rule);
    const Statistics seen =
        collect_statistics(routers, nullptr, 0, at::zeros({1, kTokens + 1}, at::kLong), 1);
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      const RouterInputs in = routers.inputs(layer);
      const at::Tensor picked = chosen(in, rule), z = in.home_TN;
      double sum = 0, ungrouped = 0;
      for (int64_t t = 0; t < kTokens; ++t) {
        std::vector<double> keys;
        for (int64_t s = 0; s < kExperts; ++s) {
          const double own = in.correction.defined() ? in.correction[s].item<double>() : 0;
          keys.push_back(key(rule, z[t][s].item<double>(), own));
        }
        std::vector<double> sorted = keys;
        std::sort(sorted.begin(), sorted.end(), std::greater<>());
        ungrouped += sorted[kChosen - 1] - sorted[kChosen];
        const at::Tensor masked = home_keys(z.narrow(0, t, 1), in.correction, rule);
        std::vector<double> left;
        for (int64_t s = 0; s < kExperts; ++s) {
          const double value = masked[0][s].item<double>();
          if (std::isinf(value)) continue;
          CHECK(value == Approx(keys[s]).margin(1e-6));
          left.push_back(value);
        }
        CHECK(static_cast<int64_t>(left.size()) == (rule.groups > 1 ? kExperts / 2 : kExperts));
        std::sort(left.begin(), left.end(), std::greater<>());
        for (int64_t k = 0; k < kChosen; ++k)  // the kernel chose the best of these
          CHECK(left[k] == Approx(keys[picked[t][k].item<int64_t>()]).margin(1e-6));
        sum += left[kChosen - 1] - left[kChosen];
      }
      CHECK(seen.margin[layer] == Approx(sum / kTokens).margin(1e-6));
      if (rule.groups > 1) CHECK(std::abs(ungrouped - sum) > 1e-3 * kTokens);
    }
  }
}
