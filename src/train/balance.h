// Universal expert load balance (docs/method.md): from counts of all routers to the loss, its
// gradient, the bias.
//
// Legend: L MoE layers, S slots of a layer, P physical experts, K experts per token, T tokens.
#pragma once

#include <cstdint>
#include <vector>

#include "moue/pool.h"

namespace moue {

using PerSlot = std::vector<std::vector<double>>;  ///< a number for each MoE layer and slot

/// What the routers did over `tokens` tokens: sums.
struct RouterSums {
  double tokens = 0;
  PerSlot chosen;       ///< how often each slot was chosen; a layer sums to K T
  PerSlot probability;  ///< sum of shares of the open scores; a layer sums to T
};

/// Shares of one step, each layer's rows summing to one: f and P of the definition.
struct RouterShares {
  PerSlot f;
  PerSlot probability;
};
RouterShares shares_of(const RouterSums& sums);

/// f = m / n: the shares before anything was counted.
PerSlot uniform_shares(const Visibility& visibility);

/// F_p = (1/L) sum_l f_{l,p} (with P: Pbar_p).
std::vector<double> pool_shares(const PerSlot& f, const Slots& slots, int64_t num_physical);

/// What the balance loss compares with at one step: it depends on the visibility alone.
struct BalanceTarget {
  Visibility visibility;
  std::vector<double> q;  ///< target share of each physical expert
  double eta = 0;         ///< weight of the per-layer sum
};
BalanceTarget balance_target(const Pool& pool, const Visibility& visibility, double kappa,
                             double eta);

/// v_{l,p}: dL/dz[t,p] = alpha / (L T) prob (v[p] - sum_j prob_j v[j]).
PerSlot balance_gradient(const Pool& pool, const BalanceTarget& target, const PerSlot& f);

/// The same for the loss of Mixtral, Qwen-MoE and OLMoE as transformers computes it: E sum_e F_e
/// Pbar_e with F and Pbar summed by an expert's number in its layer, whatever the layer, K times
/// ours where all is even. For models that share no expert.
PerSlot family_gradient(const PerSlot& f, int64_t experts_per_token);

/// The two sums, each >= 1 when f agrees with P, and 1 exactly when the load meets its target.
struct BalanceSums {
  double pool = 0;   ///< sum_p F_p Pbar_p / q_p
  double layer = 0;  ///< (1/L) sum_l n_l sum_p f P / max(m, 1/16)
  double loss(double eta) const { return (1 - eta) * pool + eta * layer; }
};
BalanceSums balance_sums(const Pool& pool, const BalanceTarget& target, const RouterShares& shares);

/// How far the load is from its target.
struct LoadReport {
  std::vector<double> max_vio;  ///< per layer: largest share / mean share of its open slots - 1
  double pool_max_vio = 0;      ///< largest F_p / q_p - 1 (the mean over q is 1)
  int64_t dead = 0;             ///< exposed experts no token chose
  double foreign_share = 0;     ///< of all choices
};
LoadReport load_report(const Pool& pool, const BalanceTarget& target, const PerSlot& f);

/// b_p += rate (q_p - F_p) P, in place, for experts with a target; where selection is by sigmoid,
/// whose scores know no other unit, b_p += rate sign(q_p - F_p).
void update_pool_bias(std::vector<double>& bias, const Pool& pool, const BalanceTarget& target,
                      const PerSlot& f, double rate, RouterScore score);

}  // namespace moue
