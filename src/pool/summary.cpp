// What reports say of a pool.
#include "pool/summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <string>

namespace moue {

namespace {

int64_t whole(size_t value) { return static_cast<int64_t>(value); }

std::string parameters_text(const Topology& t) {
  if (t.reach > 0) return fmt::format("window {}, reach {}", t.window, t.reach);
  return fmt::format("group {}, shift {}, window {}, stride {}, origin {}, {}", t.group, t.shift,
                     t.window, t.stride, t.origin, to_string(t.boundary));
}

}  // namespace

int64_t num_components(const Slots& slots) {
  const std::vector<int64_t> component = components(slots);
  int64_t count = 0;
  for (int64_t layer = 0; layer < whole(slots.size()); ++layer) count += component[layer] == layer;
  return count;
}

std::vector<Fact> pool_facts(const Pool& pool) {
  const auto [fewest, most] =
      std::minmax_element(pool.slots.begin(), pool.slots.end(),
                          [](const auto& a, const auto& b) { return a.size() < b.size(); });
  const std::vector<int64_t> c = sharing(pool.slots, pool.num_physical());
  const auto [least, greatest] = std::minmax_element(c.begin(), c.end());
  const double total = static_cast<double>(std::accumulate(c.begin(), c.end(), int64_t{0}));
  const std::vector<double> x = exposure(open_visibility(pool), pool.slots, pool.num_physical());
  const auto [dimmest, brightest] = std::minmax_element(x.begin(), x.end());
  return {{"topology", pool.topology.name, ""},
          {"topology_parameters", parameters_text(pool.topology), ""},
          {"moe_layers", pool.num_moe_layers(), ""},
          {"experts_per_layer", pool.experts_per_layer, ""},
          {"mode", std::string(to_string(pool.mode)), ""},
          {"physical_experts", pool.num_physical(), ""},
          {"new_experts", pool.num_new(), ""},
          {"slots_min", whole(fewest->size()), ""},
          {"slots_max", whole(most->size()), ""},
          {"sharing_min", *least, "layers"},
          {"sharing_mean", total / static_cast<double>(c.size()), "layers"},
          {"sharing_max", *greatest, "layers"},
          {"exposure_min", *dimmest, ""},
          {"exposure_max", *brightest, ""},
          {"components", num_components(pool.slots), ""},
          {"state", std::string(to_string(pool.state)), ""},
          {"calibrated", pool.calibrated, ""},
          {"state_dim", pool.state_dim, ""},
          {"foreign_input", std::string(to_string(pool.foreign_input)), ""}};
}

Table slots_table(const Pool& pool) {
  Table table{.key = "slots",
              .title = "Slots",
              .columns = {"MoE layer", "layer", "slots", "foreign", "donor layers", "farthest",
                          "component"},
              .rows = {}};
  const std::vector<int64_t> component = components(pool.slots);
  for (int64_t layer = 0; layer < pool.num_moe_layers(); ++layer) {
    int64_t first = layer, last = layer, farthest = 0;
    for (int32_t p : pool.slots[layer]) {
      const int64_t home = pool.home[p].layer;
      first = std::min(first, home);
      last = std::max(last, home);
      farthest = std::max(farthest, std::abs(home - layer));
    }
    table.rows.push_back({layer, pool.moe_layers[layer], whole(pool.slots[layer].size()),
                          pool.num_foreign(layer), fmt::format("{}-{}", first, last), farthest,
                          component[layer]});
  }
  return table;
}

}  // namespace moue
