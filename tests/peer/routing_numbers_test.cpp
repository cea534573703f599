// What training logs of single tokens, beside plain loops over the routers' records: every family's
// MoUE, half open.
#include "support/torch_test.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "moue/convert.h"
#include "moue/plan.h"
#include "support/scratch.h"
#include "support/tolerances.h"
#include "support/torch_compare.h"
#include "train/routing.h"

using namespace moue;
using namespace moue::test;
namespace fs = std::filesystem;

namespace {

using Rows = std::vector<std::vector<double>>;

Rows rows_of(const at::Tensor& x) {
  const at::Tensor host = x.detach().to(at::kDouble).contiguous();
  Rows rows;
  for (int64_t i = 0; i < host.size(0); ++i) {
    const double* row = host.data_ptr<double>() + i * host.size(1);
    rows.emplace_back(row, row + host.size(1));
  }
  return rows;
}

// A MoUE with every second foreign slot open, at random gains and pool bias; and what its routers
// said of 171 tokens.
struct HalfOpen {
  ScratchDir scratch;
  std::unique_ptr<Model> model;
  Pass pass;
  BalanceTarget target;
  RouterSums routers;

  explicit HalfOpen(const fs::path& directory) {
    const Checkpoint source = open_checkpoint(directory);
    const Plan plan = make_plan(source, family_of(source.config()), nullptr, {.state_dim = 8});
    convert(source, plan, nullptr, scratch / "model", {});
    model = open_model(scratch / "model", {});
    const at::NoGradGuard no_grad;
    at::manual_seed(11);
    for (Parameter& parameter : model->parameters()) {
      if (parameter.kind == ParameterKind::Gain) parameter.value.normal_(0, 0.3);
    }
    model->pool_bias().uniform_(-0.05, 0.05);
    Visibility m = closed_visibility(model->pool());
    for (auto& layer : m) {
      for (size_t slot = model->pool().experts_per_layer; slot < layer.size(); slot += 2)
        layer[slot] = 0.5;
    }
    model->set_visibility(m);
    target = balance_target(model->pool(), m, 1, 0.1);
  }

  // Two passes, as two micro-batches.
  RoutingReport report() {
    const at::NoGradGuard no_grad;
    at::manual_seed(7);
    const at::Tensor rows = at::randint(0, model->spec().vocabulary, {3, 58}, at::kLong);
    RoutingSums sums(*model);
    for (const auto& [first, count] : {std::pair{0, 2}, std::pair{2, 1}}) {
      Pass part;
      part.observer = [&](const MoeView& view) { sums.observe(view); };
      model->loss(rows.narrow(0, first, count), {}, 1, part);
    }
    model->loss(rows, {}, 1, pass);
    routers.tokens = 3 * 57;
    for (const Routed& routed : pass.routed) {
      routers.chosen.push_back(rows_of(routed.count_S.unsqueeze(0)).front());
      routers.probability.push_back(rows_of(routed.probability_S.unsqueeze(0)).front());
    }
    return routing_report(sums.sums(), model->pool(), target, routers);
  }

  at::Tensor parameter(const std::string& name) const {
    for (const Parameter& parameter : model->parameters()) {
      if (parameter.name == name) return parameter.value;
    }
    throw std::runtime_error("no " + name);
  }
};

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

// One layer, token by token.
class PlainLayer {
 public:
  PlainLayer(const HalfOpen& half, int64_t layer)
      : half_(half),
        layer_(layer),
        slots_(half.model->pool().slots[layer]),
        z_(rows_of(half.pass.routed[layer].z_TS)),
        chosen_(rows_of(half.pass.routed[layer].chosen_TK)) {
    bias_ = rows_of(half.model->pool_bias().unsqueeze(0)).front();
    const at::Tensor correction = half.model->correction(layer);
    correction_.assign(slots_.size(), 0);
    if (correction.defined()) correction_ = rows_of(correction.unsqueeze(0)).front();
    for (size_t slot = 0; slot < slots_.size(); ++slot) {
      if (half.target.visibility[layer][slot] > 0) open_.push_back(slot);
    }
  }

  size_t tokens() const { return z_.size(); }
  const std::vector<size_t>& open() const { return open_; }

  std::set<int32_t> experts(size_t t) const {
    std::set<int32_t> experts;
    for (double slot : chosen_[t]) experts.insert(slots_[static_cast<size_t>(slot)]);
    return experts;
  }

  double entropy(size_t t) const {
    double norm = 0, entropy = 0;
    for (size_t slot : open_) norm += score(t, slot);
    for (size_t slot : open_) {
      const double share = score(t, slot) / norm;
      if (share > 0) entropy -= share * std::log(share);
    }
    return entropy;
  }

  double variance(size_t t) const {
    double mean = 0, squares = 0;
    for (size_t slot : open_) mean += z_[t][slot] / static_cast<double>(open_.size());
    for (size_t slot : open_) squares += std::pow(z_[t][slot] - mean, 2);
    return squares / static_cast<double>(open_.size());
  }

  // NaN where there is no candidate beyond the chosen. `misses` counts choices that the keys do not
  // explain: there should be none.
  double margin(size_t t, int64_t& misses) const {
    std::vector<double> keys;
    for (size_t slot : candidates(t)) keys.push_back(key(t, slot));
    std::sort(keys.rbegin(), keys.rend());
    const size_t K = chosen_[t].size();
    for (double slot : chosen_[t]) misses += key(t, static_cast<size_t>(slot)) < keys[K - 1] - 1e-6;
    return keys.size() > K ? keys[K - 1] - keys[K] : std::nan("");
  }

 private:
  bool by_sigmoid() const { return half_.model->spec().router.score == RouterScore::Sigmoid; }
  double score(size_t t, size_t slot) const {
    return by_sigmoid() ? sigmoid(z_[t][slot]) : std::exp(z_[t][slot] - z_[t][open_[0]]);
  }
  double key(size_t t, size_t slot) const {
    return (by_sigmoid() ? sigmoid(z_[t][slot]) : z_[t][slot]) + correction_[slot] +
           bias_[slots_[slot]];
  }

  // Home slots of the kept groups, and every open foreign slot.
  std::vector<size_t> candidates(size_t t) const {
    const RouterSpec& rule = half_.model->spec().router;
    const auto N = static_cast<size_t>(half_.model->pool().experts_per_layer);
    const size_t size = N / rule.groups;
    std::vector<std::pair<double, int64_t>> groups;
    for (int64_t group = 0; group < rule.groups; ++group) {
      std::vector<double> keys;
      for (size_t i = 0; i < size; ++i) keys.push_back(key(t, group * size + i));
      std::sort(keys.rbegin(), keys.rend());
      const bool two = rule.group_score == GroupScore::SumOfTwo && size > 1;
      groups.push_back({-(keys[0] + (two ? keys[1] : 0)), group});
    }
    std::sort(groups.begin(), groups.end());
    std::vector<size_t> result;
    for (size_t slot : open_) {
      const bool kept =
          slot >= N ||
          std::any_of(groups.begin(), groups.begin() + rule.kept_groups, [&](const auto& group) {
            return group.second == static_cast<int64_t>(slot / size);
          });
      if (kept) result.push_back(slot);
    }
    return result;
  }

  const HalfOpen& half_;
  int64_t layer_;
  const std::vector<int32_t>& slots_;
  Rows z_, chosen_;
  std::vector<double> bias_, correction_;
  std::vector<size_t> open_;
};

// The trajectory state carried by hand: mean |< q, gamma shat >| over open slots, for each layer.
std::vector<double> plain_bonus(const HalfOpen& half, const std::vector<PlainLayer>& layers) {
  const Pool& pool = half.model->pool();
  const Rows key = rows_of(half.parameter(names::kKey)),
             query = rows_of(half.parameter(names::kQuery));
  const std::vector<double> decay = rows_of(half.parameter(names::kDecay).unsqueeze(0)).front();
  const size_t dim = decay.size(), tokens = layers[0].tokens();
  Rows state(tokens, std::vector<double>(dim, 0.0));
  std::vector<double> bonus;
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    const Routed& routed = half.pass.routed[layer];
    const Rows gate = rows_of(routed.gate_TK), chosen = rows_of(routed.chosen_TK);
    const std::vector<double> gain =
        rows_of(half.parameter(names::trajectory_gain(static_cast<int64_t>(layer))).unsqueeze(0))
            .front();
    double sum = 0;
    for (size_t t = 0; t < tokens; ++t) {
      double squares = 0;
      for (double s : state[t]) squares += s * s;
      const double norm = std::sqrt(squares / static_cast<double>(dim) + 1e-6);
      for (size_t slot : layers[layer].open()) {
        double product = 0;
        for (size_t i = 0; i < dim; ++i)
          product += query[pool.slots[layer][slot]][i] * gain[i] * state[t][i] / norm;
        sum += std::abs(product) / static_cast<double>(layers[layer].open().size());
      }
      for (size_t i = 0; i < dim; ++i) {
        double read = 0;
        for (size_t k = 0; k < gate[t].size(); ++k)
          read += gate[t][k] * key[pool.slots[layer][static_cast<size_t>(chosen[t][k])]][i];
        const double keep = sigmoid(decay[i]);
        state[t][i] = keep * state[t][i] + (1 - keep) * read;
      }
    }
    bonus.push_back(sum / static_cast<double>(tokens));
  }
  return bonus;
}

// Experts that two sets have in common.
double common(const std::set<int32_t>& a, const std::set<int32_t>& b) {
  return static_cast<double>(
      std::count_if(a.begin(), a.end(), [&](int32_t p) { return b.contains(p); }));
}

Approx near(double value) {
  return Approx(value).epsilon(tolerance::kGolden).margin(tolerance::kGolden);
}

}  // namespace

TEST_CASE("numbers of single tokens are those of plain loops, in every family", "[peer][train]") {
  for (const fs::path& family : golden_families()) {
    INFO(family);
    HalfOpen half(family);
    const RoutingReport report = half.report();
    const Pool& pool = half.model->pool();
    std::vector<PlainLayer> layers;
    for (int64_t layer = 0; layer < pool.num_moe_layers(); ++layer)
      layers.emplace_back(half, layer);
    const std::vector<double> bonus = plain_bonus(half, layers);
    const size_t L = layers.size(), T = layers[0].tokens();
    const auto K = static_cast<double>(half.model->spec().experts_per_token);
    double distinct = 0, largest_bonus = 0;
    std::set<int32_t> used;
    for (size_t t = 0; t < T; ++t) {
      std::set<int32_t> all;
      for (const PlainLayer& layer : layers) all.merge(layer.experts(t));
      distinct += static_cast<double>(all.size()) / (K * static_cast<double>(L * T));
      used.merge(all);
    }
    for (size_t l = 0; l < L; ++l) {
      INFO("layer " << l);
      double entropy = 0, margin = 0, variance = 0, reuse = 0;
      int64_t misses = 0;
      for (size_t t = 0; t < T; ++t) {
        entropy += layers[l].entropy(t) / static_cast<double>(T);
        variance += layers[l].variance(t) / static_cast<double>(T);
        margin += layers[l].margin(t, misses) / static_cast<double>(T);
        if (l > 0)
          reuse +=
              common(layers[l].experts(t), layers[l - 1].experts(t)) / (K * static_cast<double>(T));
      }
      CHECK(misses == 0);
      CHECK(report.entropy[l] == near(entropy));
      CHECK(report.spread[l] == near(std::sqrt(variance)));
      CHECK(report.bonus[l] == near(bonus[l]));
      CHECK(std::isnan(margin) == std::isnan(report.margin[l]));
      if (!std::isnan(margin)) CHECK(report.margin[l] == near(margin));
      if (l > 0) CHECK(report.reuse[l - 1] == near(reuse));
      largest_bonus = std::max(largest_bonus, bonus[l]);
    }
    CHECK(largest_bonus > 100 * tolerance::kGolden);
    CHECK(report.distinct == near(distinct));
    const auto exposed = static_cast<double>(
        std::count_if(half.target.q.begin(), half.target.q.end(), [](double q) { return q > 0; }));
    CHECK(report.utilisation == near(static_cast<double>(used.size()) / exposed));
  }
}

TEST_CASE("numbers of single tokens notice closed slots, another bias and other layers",
          "[peer][train]") {
  const fs::path family = "tests/golden/families/mixtral";
  HalfOpen half(family), closed(family), biased(family), turned(family);
  const RoutingReport report = half.report();
  closed.model->set_visibility(closed_visibility(closed.model->pool()));
  closed.target = balance_target(half.model->pool(), closed.model->visibility(), 1, 0.1);
  const RoutingReport without = closed.report();
  CHECK(without.reuse == std::vector<double>(without.reuse.size(), 0.0));
  CHECK(without.reuse_chance == std::vector<double>(without.reuse.size(), 0.0));
  CHECK(without.foreign == std::vector<double>(without.foreign.size(), 0.0));
  CHECK(without.distinct == Approx(1));
  CHECK(report.distinct < 1 - 100 * tolerance::kGolden);
  CHECK(report.entropy[0] > without.entropy[0] + 100 * tolerance::kGolden);
  biased.model->pool_bias().mul_(20);
  CHECK(std::abs(biased.report().margin[0] - report.margin[0]) > 100 * tolerance::kGolden);
  // Gains of zero leave no bonus.
  for (Parameter& parameter : turned.model->parameters()) {
    if (parameter.kind == ParameterKind::Gain) parameter.value.zero_();
  }
  CHECK(turned.report().bonus == std::vector<double>(report.bonus.size(), 0.0));
}

TEST_CASE("reuse is chance where layers choose independently", "[peer][train]") {
  // Two layers over the same four experts, two chosen of them by each token.
  Pool pool;
  pool.experts_per_layer = 2;
  pool.home = {{0, 0}, {0, 1}, {1, 0}, {1, 1}};
  pool.slots = {{0, 1, 2, 3}, {2, 3, 0, 1}};
  const BalanceTarget target = balance_target(pool, open_visibility(pool), 1, 0.1);
  // All pairs of pairs once: 36 tokens, as often as independence has it.
  RouterSums routers{36, {}, {}};
  std::vector<std::vector<double>> chosen(2, std::vector<double>(4, 0.0));
  double shared = 0;
  for (int a = 0; a < 16; ++a) {
    for (int b = 0; b < 16; ++b) {
      if (__builtin_popcount(a) != 2 || __builtin_popcount(b) != 2) continue;
      for (int p = 0; p < 4; ++p) {
        chosen[0][p] += (a >> p) & 1;
        chosen[1][(p + 2) % 4] += (b >> p) & 1;  // experts 2, 3, 0, 1 in slots 0 to 3
      }
      shared += __builtin_popcount(a & b);
    }
  }
  routers.chosen = routers.probability = chosen;
  const at::Tensor sums = at::zeros({6, 2}, at::kDouble);
  sums[4][1] = shared;
  const RoutingReport even = routing_report(sums, pool, target, routers);
  CHECK(even.reuse[0] == Approx(0.5));
  CHECK(even.reuse_chance[0] == Approx(0.5));
  CHECK(even.foreign == std::vector<double>{0.5, 0.5});
  // All tokens of both layers at the same two experts: reuse is certain, by chance too.
  routers.chosen = {{36, 36, 0, 0}, {0, 0, 36, 36}};
  const RoutingReport same = routing_report(sums, pool, target, routers);
  CHECK(same.reuse_chance[0] == Approx(1));
  CHECK(same.foreign == std::vector<double>{0, 1});
  CHECK(same.utilisation == Approx(0.5));
}
