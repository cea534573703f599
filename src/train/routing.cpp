// What the routers did with single tokens: a few sums for each layer, by operations of LibTorch.
#include "train/routing.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "model/router.h"

namespace moue {
namespace {

// Rows of the sums. Shared counts experts that a layer has in common with the one before, Distinct
// those of a token over all layers (in column 0).
enum Kind : uint8_t { kEntropy, kMargin, kBonus, kVariance, kShared, kDistinct, kKinds };

at::Tensor total(const at::Tensor& values) { return values.sum(at::kDouble); }

double sum(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

// Experts of a token over all layers, each once.
at::Tensor distinct(const std::vector<at::Tensor>& chosen_TK) {
  const at::Tensor sorted = std::get<0>(at::cat(chosen_TK, 1).sort(1));
  const int64_t width = sorted.size(1);
  const at::Tensor changes = sorted.narrow(1, 1, width - 1).ne(sorted.narrow(1, 0, width - 1));
  return total(changes) + static_cast<double>(sorted.size(0));
}

// Candidates of a choice: open foreign slots beside the home slots of kept groups.
int64_t num_candidates(const RouterSpec& rule, int64_t home, int64_t open) {
  return home / rule.groups * std::min(rule.groups, rule.kept_groups) + open - home;
}

// [L - 1] K sum_p f_{l,p} f_{l+1,p}: a token has p among its K experts with probability K f.
std::vector<double> reuse_by_chance(const Pool& pool, const PerSlot& f, double K) {
  std::vector<double> chance, before(pool.num_physical(), 0.0);
  for (size_t layer = 0; layer < f.size(); ++layer) {
    std::vector<double> now(pool.num_physical(), 0.0);
    for (size_t slot = 0; slot < f[layer].size(); ++slot)
      now[pool.slots[layer][slot]] = f[layer][slot];
    if (layer > 0)
      chance.push_back(K * std::inner_product(now.begin(), now.end(), before.begin(), 0.0));
    before = now;
  }
  return chance;
}

}  // namespace

RoutingSums::RoutingSums(Model& model) : model_(model), chosen_TK_(model.pool().num_moe_layers()) {
  const at::Device device = model.pool_bias().device();
  const Pool& pool = model.pool();
  for (size_t layer = 0; layer < pool.slots.size(); ++layer) {
    physical_.push_back(at::tensor(pool.slots[layer], at::kInt).to(device));
    const std::vector<double>& m = model.visibility()[layer];
    std::vector<int64_t> open;
    for (size_t slot = 0; slot < m.size(); ++slot) {
      if (m[slot] > 0) open.push_back(static_cast<int64_t>(slot));
    }
    open_.push_back(open.size() < m.size() ? at::tensor(open, at::kLong).to(device) : at::Tensor());
  }
  sums_ = at::zeros({kKinds, pool.num_moe_layers()}, at::TensorOptions(device).dtype(at::kDouble));
}

at::Tensor RoutingSums::open_of(const at::Tensor& values_TS, int64_t layer) const {
  return open_[layer].defined() ? values_TS.index_select(1, open_[layer]) : values_TS;
}

// In the keys of selection: logits, or sigmoids, plus both biases.
at::Tensor RoutingSums::margin(const MoeView& view) const {
  const RouterSpec& rule = model_.spec().router;
  const at::Tensor& z = view.routed->z_TS;
  const int64_t layer = view.moe_layer, N = model_.pool().experts_per_layer,
                K = model_.spec().experts_per_token, S = z.size(1);
  const int64_t open = open_[layer].defined() ? open_[layer].numel() : S;
  if (num_candidates(rule, N, open) <= K)
    return at::full({}, std::numeric_limits<double>::quiet_NaN(), sums_.options());
  at::Tensor bias = model_.pool_bias().index_select(0, physical_[layer]);
  if (model_.correction(layer).defined()) bias = bias + model_.correction(layer);
  const at::Tensor foreign = z.narrow(1, N, S - N);
  const at::Tensor foreign_key =
      (rule.score == RouterScore::Sigmoid ? at::sigmoid(foreign) : foreign) +
      bias.narrow(0, N, S - N);
  const at::Tensor key = at::cat({home_keys(z.narrow(1, 0, N), bias, rule), foreign_key}, 1);
  const at::Tensor best = std::get<0>(open_of(key, layer).topk(K + 1, 1));
  return total(best.select(1, K - 1) - best.select(1, K));
}

void RoutingSums::observe(const MoeView& view) {
  const at::NoGradGuard no_grad;
  const int64_t layer = view.moe_layer;
  const Routed& routed = *view.routed;
  const at::Tensor z = open_of(routed.z_TS, layer);
  const bool by_sigmoid = model_.spec().router.score == RouterScore::Sigmoid;
  const at::Tensor log_share = (by_sigmoid ? at::log_sigmoid(z) : z).log_softmax(1);
  std::vector<at::Tensor> now(kKinds, at::zeros({}, sums_.options()));
  now[kEntropy] = -total(log_share.exp() * log_share);
  now[kMargin] = margin(view);
  now[kVariance] = total(at::var(z, at::IntArrayRef{1}, false));
  if (routed.bonus_TS.defined()) now[kBonus] = total(open_of(routed.bonus_TS, layer).abs().mean(1));
  const at::Tensor chosen = physical_[layer].index_select(0, routed.chosen_TK.reshape({-1}));
  chosen_TK_[layer] = chosen.view(routed.chosen_TK.sizes());
  if (layer > 0)
    now[kShared] = total(chosen_TK_[layer].unsqueeze(2).eq(chosen_TK_[layer - 1].unsqueeze(1)));
  sums_.select(1, layer).add_(at::stack(now));
  if (layer + 1 == sums_.size(1)) sums_[kDistinct][0].add_(distinct(chosen_TK_));
}

RoutingReport routing_report(const at::Tensor& sums, const Pool& pool, const BalanceTarget& target,
                             const RouterSums& routers) {
  const int64_t layers = pool.num_moe_layers(), N = pool.experts_per_layer;
  const auto at = sums.accessor<double, 2>();
  const double T = routers.tokens, choices = sum(routers.chosen.front()), K = choices / T;
  RoutingReport report;
  const PerSlot f = shares_of(routers).f;
  for (int64_t layer = 0; layer < layers; ++layer) {
    report.entropy.push_back(at[kEntropy][layer] / T);
    report.margin.push_back(at[kMargin][layer] / T);
    report.bonus.push_back(at[kBonus][layer] / T);
    report.spread.push_back(std::sqrt(at[kVariance][layer] / T));
    report.foreign.push_back(std::accumulate(f[layer].begin() + N, f[layer].end(), 0.0));
    if (layer > 0) report.reuse.push_back(at[kShared][layer] / choices);
  }
  report.reuse_chance = reuse_by_chance(pool, f, K);
  report.distinct = at[kDistinct][0] / (choices * static_cast<double>(layers));
  const std::vector<double> load = pool_shares(f, pool.slots, pool.num_physical());
  const auto positive = [](const std::vector<double>& values) {
    return static_cast<double>(
        std::count_if(values.begin(), values.end(), [](double value) { return value > 0; }));
  };
  const double most = std::min(positive(target.q), choices * static_cast<double>(layers));
  report.utilisation = positive(load) / most;
  return report;
}

}  // namespace moue
