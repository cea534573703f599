// Relocking: which foreign slots a trained layer keeps, and how the others close (UniPool-lock).
#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "pool/schedule.h"

namespace moue {

std::vector<std::vector<double>> kept_slots(const Pool& pool,
                                            const std::vector<std::vector<double>>& f,
                                            double cover) {
  const auto home = static_cast<std::ptrdiff_t>(pool.experts_per_layer);
  Visibility kept = closed_visibility(pool);
  for (size_t layer = 0; layer < f.size(); ++layer) {
    const std::vector<double>& share = f[layer];
    std::vector<size_t> order(share.size() - home);
    std::iota(order.begin(), order.end(), static_cast<size_t>(home));
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return share[a] > share[b]; });
    double held = std::accumulate(share.begin(), share.begin() + home, 0.0);
    for (const size_t slot : order) {
      if (held >= cover || share[slot] <= 0) break;
      kept[layer][slot] = 1;
      held += share[slot];
    }
  }
  return kept;
}

Visibility relocked(const std::vector<std::vector<double>>& kept, double phi) {
  const double fading = (1 + std::cos(std::numbers::pi * phi)) / 2;
  Visibility m = kept;
  for (std::vector<double>& row : m) {
    for (double& slot : row) slot = std::max(slot, fading);
  }
  return m;
}

}  // namespace moue
