// Universal expert load balance: plain sums over layers and slots, in double.
#include "train/balance.h"

#include <algorithm>
#include <numeric>

namespace moue {
namespace {

// Below this visibility a slot counts as if it were this open: 1/m must not explode while slots
// open.
constexpr double kLeastVisibility = 1.0 / 16;

double sum(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

}  // namespace

RouterShares shares_of(const RouterSums& sums) {
  RouterShares shares{sums.chosen, sums.probability};
  for (auto* rows : {&shares.f, &shares.probability}) {
    for (std::vector<double>& row : *rows) {
      const double total = sum(row);
      if (total > 0) std::for_each(row.begin(), row.end(), [&](double& value) { value /= total; });
    }
  }
  return shares;
}

PerSlot uniform_shares(const Visibility& visibility) { return shares_of({0, visibility, {}}).f; }

std::vector<double> pool_shares(const PerSlot& f, const Slots& slots, int64_t num_physical) {
  std::vector<double> shares(num_physical, 0.0);
  for (size_t layer = 0; layer < slots.size(); ++layer) {
    for (size_t slot = 0; slot < slots[layer].size(); ++slot) {
      shares[slots[layer][slot]] += f[layer][slot] / static_cast<double>(slots.size());
    }
  }
  return shares;
}

BalanceTarget balance_target(const Pool& pool, const Visibility& visibility, double kappa,
                             double eta) {
  const std::vector<double> x = exposure(visibility, pool.slots, pool.num_physical());
  return {visibility, target_share(x, pool.slots, kappa), eta};
}

PerSlot balance_gradient(const Pool& pool, const BalanceTarget& target, const PerSlot& f) {
  const std::vector<double> load = pool_shares(f, pool.slots, pool.num_physical());
  PerSlot v(f.size());
  for (size_t layer = 0; layer < f.size(); ++layer) {
    const std::vector<double>& m = target.visibility[layer];
    const double n = sum(m);
    v[layer].assign(f[layer].size(), 0.0);
    for (size_t slot = 0; slot < m.size(); ++slot) {
      const int32_t p = pool.slots[layer][slot];
      if (m[slot] <= 0) continue;
      if (target.q[p] > 0) v[layer][slot] = (1 - target.eta) * load[p] / target.q[p];
      v[layer][slot] += target.eta * n * f[layer][slot] / std::max(m[slot], kLeastVisibility);
    }
  }
  return v;
}

PerSlot family_gradient(const PerSlot& f, int64_t experts_per_token) {
  std::vector<double> load(f.front().size(), 0.0);
  for (const std::vector<double>& row : f) {
    for (size_t e = 0; e < row.size(); ++e) load[e] += row[e] / static_cast<double>(f.size());
  }
  const auto factor = static_cast<double>(experts_per_token) * static_cast<double>(load.size());
  for (double& share : load) share *= factor;
  return PerSlot(f.size(), load);
}

BalanceSums balance_sums(const Pool& pool, const BalanceTarget& target,
                         const RouterShares& shares) {
  const std::vector<double> load = pool_shares(shares.f, pool.slots, pool.num_physical());
  const std::vector<double> mean = pool_shares(shares.probability, pool.slots, pool.num_physical());
  BalanceSums sums;
  for (size_t p = 0; p < load.size(); ++p) {
    if (target.q[p] > 0) sums.pool += load[p] * mean[p] / target.q[p];
  }
  for (size_t layer = 0; layer < shares.f.size(); ++layer) {
    const std::vector<double>& m = target.visibility[layer];
    double own = 0;
    for (size_t slot = 0; slot < m.size(); ++slot) {
      if (m[slot] <= 0) continue;
      own += shares.f[layer][slot] * shares.probability[layer][slot] /
             std::max(m[slot], kLeastVisibility);
    }
    sums.layer += sum(m) * own / static_cast<double>(shares.f.size());
  }
  return sums;
}

LoadReport load_report(const Pool& pool, const BalanceTarget& target, const PerSlot& f) {
  const std::vector<double> load = pool_shares(f, pool.slots, pool.num_physical());
  LoadReport report;
  double foreign = 0;
  for (size_t layer = 0; layer < f.size(); ++layer) {
    const std::vector<double>& m = target.visibility[layer];
    const auto open = std::count_if(m.begin(), m.end(), [](double value) { return value > 0; });
    report.max_vio.push_back(
        *std::max_element(f[layer].begin(), f[layer].end()) * static_cast<double>(open) - 1);
    foreign += std::accumulate(f[layer].begin() + pool.experts_per_layer, f[layer].end(), 0.0);
  }
  report.foreign_share = foreign / static_cast<double>(f.size());
  report.pool_max_vio = -1;
  for (size_t p = 0; p < load.size(); ++p) {
    if (target.q[p] <= 0) continue;
    report.pool_max_vio = std::max(report.pool_max_vio, load[p] / target.q[p] - 1);
    report.dead += load[p] == 0;
  }
  return report;
}

void update_pool_bias(std::vector<double>& bias, const Pool& pool, const BalanceTarget& target,
                      const PerSlot& f, double rate, RouterScore score) {
  const std::vector<double> load = pool_shares(f, pool.slots, pool.num_physical());
  for (size_t p = 0; p < bias.size(); ++p) {
    if (target.q[p] <= 0) continue;
    const double lack = target.q[p] - load[p];
    const bool by_sign = score == RouterScore::Sigmoid;
    bias[p] += rate * (by_sign ? static_cast<double>((lack > 0) - (lack < 0))
                               : lack * static_cast<double>(bias.size()));
  }
}

}  // namespace moue
