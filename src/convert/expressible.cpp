// Whether an ordinary model can compute what a MoUE computes.
#include "convert/expressible.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "core/text.h"

namespace moue {

namespace {

std::vector<double> values(const Checkpoint& moue, const std::string& name) {
  return moue.values(moue.at(name));
}

// NaN counts: what is not zero is not known to be harmless.
int64_t count_nonzero(std::span<const double> numbers) {
  return std::ranges::count_if(numbers, [](double number) { return !(number == 0); });
}

}  // namespace

std::vector<std::string> inexpressible_layers(const Checkpoint& moue, const Pool& pool) {
  const std::vector<double> bias = values(moue, names::kPoolBias);
  const int64_t experts = pool.experts_per_layer;
  std::vector<std::string> layers;
  for (int64_t layer = 0; layer < pool.num_moe_layers(); ++layer) {
    std::vector<std::string> reasons;
    const int64_t open = count_nonzero(values(moue, names::router_visibility(layer)));
    if (open > 0) {
      reasons.push_back(fmt::format("{} of {} foreign slots open", open, pool.num_foreign(layer)));
    }
    if (layer > 0 && count_nonzero(values(moue, names::trajectory_gain(layer))) > 0) {
      reasons.push_back("a trajectory gain");
    }
    const auto own =
        std::span(bias).subspan(static_cast<size_t>(layer * experts), static_cast<size_t>(experts));
    if (const int64_t count = count_nonzero(own); count > 0) {
      reasons.push_back(fmt::format("selection biases of {} own experts", count));
    }
    if (reasons.empty()) continue;
    layers.push_back(fmt::format("layer {} has {}", pool.moe_layers[layer], join(reasons)));
  }
  return layers;
}

}  // namespace moue
