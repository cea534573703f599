// Universal expert load balance against the recorded reference, and its properties.
#include "support/torch_test.h"

#include "moue/config.h"
#include "moue/safetensors.h"
#include "support/tolerances.h"
#include "train/balance.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

namespace moue {
namespace {

const std::filesystem::path kGoldenMoue = "tests/golden/moue";
constexpr double kFar = 100 * tolerance::kGolden;  // what a negative control must exceed

// What the reference's routers did with its half-open model.
struct Recorded {
  Pool pool;
  Visibility visibility;
  RouterSums sums;
  SafetensorsFile expected;

  explicit Recorded(const std::string& topology)
      : pool(read_pool(Config::read(kGoldenMoue / topology / "model" / "config.json"))),
        visibility(open_visibility(pool)),
        expected(kGoldenMoue / topology / "expected.safetensors") {
    const SafetensorsFile model(kGoldenMoue / topology / "model" / "model-moue.safetensors");
    for (int64_t layer = 0; layer < pool.num_moe_layers(); ++layer) {
      const std::vector<double> m = model.values(names::router_visibility(layer));
      std::copy(m.begin(), m.end(), visibility[layer].begin() + pool.experts_per_layer);
      add(layer, visibility[layer].size());
    }
  }

  void add(int64_t layer, size_t num_slots) {
    const std::string stem = "open.layers." + std::to_string(layer) + ".";
    std::vector<double> chosen(num_slots, 0), probability(num_slots, 0);
    for (double slot : expected.values(stem + "chosen")) ++chosen[static_cast<size_t>(slot)];
    const std::vector<double> all = expected.values(stem + "probability");
    for (size_t i = 0; i < all.size(); ++i) probability[i % num_slots] += all[i];
    sums.tokens = static_cast<double>(all.size() / num_slots);
    sums.chosen.push_back(chosen);
    sums.probability.push_back(probability);
  }

  double loss(double kappa, double eta) const {
    const BalanceTarget target = balance_target(pool, visibility, kappa, eta);
    return balance_sums(pool, target, shares_of(sums)).loss(eta);
  }

  double golden(const std::string& kappa, const std::string& eta) const {
    return expected.values("open.balance_loss.kappa_" + kappa + ".eta_" + eta).at(0);
  }
};

Pool two_layers() {
  Pool pool;
  pool.experts_per_layer = 2;
  pool.home = {{0, 0}, {0, 1}, {1, 0}, {1, 1}};
  pool.slots = {{0, 1, 2, 3}, {2, 3, 0}};
  return pool;
}

}  // namespace

TEST_CASE("balance losses are the reference's", "[golden][balance]") {
  const std::string topology = GENERATE("aligned", "half_staggered", "ring_stride");
  CAPTURE(topology);
  const Recorded recorded(topology);
  for (const std::string kappa : {"0.0", "0.5", "1.0"}) {
    for (const std::string eta : {"0.0", "0.1", "1.0"}) {
      CAPTURE(kappa, eta);
      const double golden = recorded.golden(kappa, eta);
      const double ours = recorded.loss(std::stod(kappa), std::stod(eta));
      CHECK(std::abs(ours - golden) <= tolerance::kGolden * std::abs(golden));
    }
  }
  CHECK(std::abs(recorded.loss(0, 0) - recorded.golden("1.0", "0.0")) > kFar);
  CHECK(std::abs(recorded.loss(1, 0.1) - recorded.golden("1.0", "1.0")) > kFar);
}

TEST_CASE("a balance loss notices wrong counts, slots and visibility", "[balance]") {
  const std::string topology = GENERATE("aligned", "half_staggered", "ring_stride");
  CAPTURE(topology);
  const double golden = Recorded(topology).golden("1.0", "0.1");

  Recorded swapped(topology);
  std::swap(swapped.sums.chosen[0], swapped.sums.chosen[1]);
  CHECK(std::abs(swapped.loss(1, 0.1) - golden) > kFar);

  Recorded moved(topology);
  for (size_t layer = 0; layer < moved.pool.slots.size(); layer += 2)
    std::reverse(moved.pool.slots[layer].begin(), moved.pool.slots[layer].end());
  CHECK(std::abs(moved.loss(1, 0.1) - golden) > kFar);

  Recorded opened(topology);
  opened.visibility = open_visibility(opened.pool);
  CHECK(std::abs(opened.loss(1, 0.1) - golden) > kFar);
}

TEST_CASE("v is L times the derivative of the loss by the mean probability", "[balance]") {
  const double eta = GENERATE(0.0, 0.1, 1.0);
  const Recorded recorded("half_staggered");
  const BalanceTarget target = balance_target(recorded.pool, recorded.visibility, 1, eta);
  RouterShares shares = shares_of(recorded.sums);
  const PerSlot v = balance_gradient(recorded.pool, target, shares.f);
  const double before = balance_sums(recorded.pool, target, shares).loss(eta);
  const auto layers = static_cast<double>(v.size());
  for (size_t slot = 0; slot < v[1].size(); ++slot) {
    CAPTURE(eta, slot);
    RouterShares moved = shares;
    moved.probability[1][slot] += 1.0;  // the loss is linear in P
    const double change = balance_sums(recorded.pool, target, moved).loss(eta) - before;
    if (recorded.visibility[1][slot] > 0) {
      CHECK(change * layers == Approx(v[1][slot]).epsilon(tolerance::kDoubleSum * 100));
    } else {
      CHECK(v[1][slot] == 0.0);
    }
  }
}

TEST_CASE("both sums are one when the load meets its target", "[balance]") {
  const Pool pool = two_layers();
  const Visibility half = {{1, 1, 0.5, 0.25}, {1, 1, 0.75}};
  const BalanceTarget target = balance_target(pool, half, 1, 0.1);
  const PerSlot f = uniform_shares(half);
  const BalanceSums even = balance_sums(pool, target, {f, f});
  CHECK(even.pool == Approx(1).epsilon(tolerance::kDoubleSum));
  CHECK(even.layer == Approx(1).epsilon(tolerance::kDoubleSum));
  const PerSlot tilted = shares_of({0, {{3, 1, 1, 1}, {1, 1, 1}}, {}}).f;
  const BalanceSums uneven = balance_sums(pool, target, {tilted, tilted});
  CHECK(uneven.pool > 1.01);
  CHECK(uneven.layer > 1.01);
}

TEST_CASE("the load report counts what it says", "[balance]") {
  const Pool pool = two_layers();
  const Visibility open = open_visibility(pool);
  const BalanceTarget target = balance_target(pool, open, 1, 0.1);
  const PerSlot f = {{0.5, 0.25, 0.25, 0}, {0.75, 0, 0.25}};
  const LoadReport report = load_report(pool, target, f);
  CHECK(report.max_vio[0] == Approx(0.5 * 4 - 1));
  CHECK(report.max_vio[1] == Approx(0.75 * 3 - 1));
  CHECK(report.dead == 1);  // expert 3: slot 3 of layer 0 and slot 1 of layer 1
  CHECK(report.foreign_share == Approx((0.25 + 0.25) / 2));
  const double q = (1.0 / 4 + 1.0 / 3) / 2;  // of expert 2, exposure of both layers over L
  CHECK(report.pool_max_vio == Approx((0.25 + 0.75) / 2 / q - 1));
}

TEST_CASE("the pool bias moves towards the target and keeps its sum", "[balance]") {
  const Pool pool = two_layers();
  const BalanceTarget target = balance_target(pool, open_visibility(pool), 1, 0.1);
  const PerSlot f = {{0.5, 0.25, 0.25, 0}, {0.75, 0, 0.25}};
  std::vector<double> bias(4, 0.0);
  update_pool_bias(bias, pool, target, f, 1e-3, RouterScore::Chosen);
  const double load = (0.25 + 0.75) / 2;
  CHECK(bias[2] == Approx(1e-3 * (target.q[2] - load) * 4));
  CHECK(bias[2] < 0);
  CHECK(bias[3] > 0);
  CHECK(bias[0] + bias[1] + bias[2] + bias[3] == Approx(0).margin(1e-15));

  std::vector<double> by_sign(4, 0.5);
  update_pool_bias(by_sign, pool, target, f, 1e-3, RouterScore::Sigmoid);
  for (size_t p = 0; p < by_sign.size(); ++p)
    CHECK(by_sign[p] == 0.5 + std::copysign(1e-3, bias[p]));
}

}  // namespace moue
