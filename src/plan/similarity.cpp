// Slots by scores: each layer's best donors within reach.
#include "plan/similarity.h"

#include "core/text.h"
#include "moue/error.h"

#include <algorithm>
#include <cstdlib>
#include <numeric>

namespace moue {

namespace {

// Experts of other layers that a layer may list, best first.
std::vector<int32_t> candidates(const Topology& t, const std::vector<double>& score,
                                int64_t layer) {
  std::vector<int32_t> result;
  for (int32_t p = 0; p < t.layers * t.experts; ++p) {
    const int64_t distance = std::abs(p / t.experts - layer);
    if (distance > 0 && distance <= t.reach && score[p] != Similarity::kUnknown)
      result.push_back(p);
  }
  std::ranges::stable_sort(result, [&](int32_t a, int32_t b) { return score[a] > score[b]; });
  return result;
}

}  // namespace

Slots slots_by_score(const Topology& t, const Similarity& similarity) {
  Slots result;
  std::vector<std::string> short_of;
  for (int64_t layer = 0; layer < t.layers; ++layer) {
    std::vector<int32_t>& slots = result.emplace_back(t.experts);
    std::iota(slots.begin(), slots.end(), static_cast<int32_t>(layer * t.experts));
    const std::vector<int32_t> donors = candidates(t, similarity.score[layer], layer);
    const int64_t wanted = t.window - t.experts, found = static_cast<int64_t>(donors.size());
    if (found < wanted) short_of.push_back(fmt::format("layer {} has {}", layer, found));
    slots.insert(slots.end(), donors.begin(), donors.begin() + std::min(wanted, found));
  }
  if (short_of.empty()) return result;
  fail("plan",
       "topology {} (window {}, reach {}): {}, wanted {} donors within reach; narrow the window or "
       "lengthen the reach",
       t.name, t.window, t.reach, join_some(short_of), t.window - t.experts);
}

PlanScores scores_of(const Slots& slots, const Similarity& similarity) {
  PlanScores scores{similarity.kind, similarity.inputs, similarity.samples, {}};
  for (size_t layer = 0; layer < slots.size(); ++layer) {
    const std::vector<double>& score = similarity.score[layer];
    const size_t experts = score.size() / slots.size();
    if (slots[layer].size() == experts) continue;
    LayerScores of_layer{static_cast<int64_t>(layer), 0, 0, 1};
    for (size_t slot = experts; slot < slots[layer].size(); ++slot) {
      const double value = score[slots[layer][slot]];
      of_layer.best = std::max(of_layer.best, value);
      of_layer.worst = std::min(of_layer.worst, value);
      of_layer.mean += value / static_cast<double>(slots[layer].size() - experts);
    }
    scores.layers.push_back(of_layer);
  }
  return scores;
}

double score_at(const Similarity& similarity, const Pool& pool, int64_t layer, int32_t physical) {
  const Home home = pool.home[physical];
  if (home.layer == layer) return 1;
  return similarity.score[layer][home.layer * pool.experts_per_layer + home.expert];
}

}  // namespace moue
