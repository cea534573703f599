// Turns of several sources: quotas by largest remainder, spread by largest arrears.
#include "tokens/turns.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <numeric>

namespace moue {

namespace {

// Whole numbers that sum to `round`, as near to the weights as can be, none of them 0.
std::vector<uint64_t> quotas(const std::vector<double>& weights, size_t round) {
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<uint64_t> quota;
  std::vector<double> missing;  // how much more a source should have
  for (const double weight : weights) {
    const double exact = weight / total * static_cast<double>(round);
    quota.push_back(static_cast<uint64_t>(std::max(1.0, std::floor(exact))));
    missing.push_back(exact - static_cast<double>(quota.back()));
  }
  const auto sum = [&] { return std::accumulate(quota.begin(), quota.end(), uint64_t{0}); };
  for (uint64_t all = sum(); all != round; all = sum()) {
    const bool more = all < round;
    size_t best = weights.size();
    for (size_t i = 0; i < weights.size(); ++i) {
      if (!more && quota[i] == 1) continue;
      const bool ahead = best == weights.size() ||
                         (more ? missing[i] > missing[best] : missing[i] < missing[best]);
      if (ahead) best = i;
    }
    quota[best] += more ? 1 : -1;
    missing[best] += more ? -1 : 1;
  }
  return quota;
}

}  // namespace

Turns::Turns(const std::vector<double>& weights) {
  assert(!weights.empty() && weights.size() <= kMostSources);
  const size_t round = weights.size() == 1 ? 1 : kRound;
  quota_ = quotas(weights, round);
  std::vector<uint64_t> taken(weights.size());
  for (size_t row = 0; row < round; ++row) {
    // Arrears in units of a row times the round: whole numbers, so that ties are the same anywhere.
    const auto arrears = [&](size_t source) {
      return static_cast<int64_t>(quota_[source] * (row + 1)) -
             static_cast<int64_t>(taken[source] * round);
    };
    size_t best = 0;
    for (size_t source = 1; source < weights.size(); ++source) {
      if (arrears(source) > arrears(best)) best = source;
    }
    round_.push_back({static_cast<uint32_t>(best), static_cast<uint32_t>(taken[best]++)});
  }
}

Turns::Turn Turns::at(uint64_t row) const {
  const Entry& entry = round_[row % round_.size()];
  return {entry.source, row / round_.size() * quota_[entry.source] + entry.rank};
}

double Turns::share(size_t source) const {
  return static_cast<double>(quota_[source]) / static_cast<double>(round_.size());
}

}  // namespace moue
