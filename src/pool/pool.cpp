// Pools: the trivial one, the checks every pool must pass, and what follows from visibility.
#include "moue/pool.h"

#include "core/text.h"
#include "moue/error.h"
#include "pool/faults.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <unordered_map>

namespace moue {

namespace {

// Faults of one layer's slot list; `own` is its first own expert.
void check_layer(const Pool& pool, int64_t layer, int64_t experts_per_token,
                 std::vector<bool>& seen, std::vector<std::string>& faults) {
  const std::vector<int32_t>& slots = pool.slots[layer];
  const int64_t experts = pool.experts_per_layer, own = layer * experts;
  const auto count = static_cast<int64_t>(slots.size());
  if (count < std::max(experts, experts_per_token) || count > kMaxSlots) {
    faults.push_back(fmt::format("layer {} has {} slots, wanted {} to {}", layer, count,
                                 std::max(experts, experts_per_token), kMaxSlots));
  }
  for (int64_t slot = 0; slot < std::min(experts, count); ++slot) {
    if (slots[slot] == own + slot) continue;
    faults.push_back(
        fmt::format("layer {} lists expert {} in slot {}, wanted its own experts {} to {} first",
                    layer, slots[slot], slot, own, own + experts - 1));
    break;
  }
  for (int64_t slot = 0; slot < count; ++slot) {
    const int32_t p = slots[slot];
    if (p < 0 || p >= pool.num_physical()) {
      faults.push_back(fmt::format("layer {} lists expert {} in slot {}, wanted 0 to {}", layer, p,
                                   slot, pool.num_physical() - 1));
    } else if (pool.mode == Mode::Expand && slot >= experts && p < pool.num_source()) {
      faults.push_back(fmt::format(
          "layer {} lists expert {} in slot {}, wanted new experts alone, {} to {}, in mode expand",
          layer, p, slot, pool.num_source(), pool.num_physical() - 1));
    } else if (seen[p]) {
      faults.push_back(
          fmt::format("layer {} lists expert {} twice, again in slot {}", layer, p, slot));
    } else {
      seen[p] = true;
    }
  }
  for (int32_t p : slots) {
    if (p >= 0 && p < pool.num_physical()) seen[p] = false;
  }
}

void check_homes(const Pool& pool, std::vector<std::string>& faults) {
  const int64_t layers = pool.num_moe_layers(), experts = pool.experts_per_layer;
  const int64_t source = pool.num_source(), physical = pool.num_physical();
  if (pool.mode == Mode::Reuse && physical != source) {
    faults.push_back(fmt::format("it has {} homes, wanted {} ({} layers of {} experts)", physical,
                                 source, layers, experts));
  }
  if (pool.mode == Mode::Expand && physical <= source) {
    faults.push_back(
        fmt::format("it has {} homes, wanted more than {} ({} layers of {} experts) in mode expand",
                    physical, source, layers, experts));
  }
  for (int64_t p = 0; p < physical; ++p) {
    const Home seen = pool.home[p];
    const bool is_new = pool.mode == Mode::Expand && p >= source;
    if (is_new &&
        (seen.layer < 0 || seen.layer >= layers || seen.expert < 0 || seen.expert >= experts)) {
      faults.push_back(fmt::format(
          "the donor of new expert {} is [{}, {}], wanted one of {} layers of {} experts", p,
          seen.layer, seen.expert, layers, experts));
    }
    if (is_new || (seen.layer == p / experts && seen.expert == p % experts)) continue;
    faults.push_back(fmt::format("the home of expert {} is [{}, {}], wanted [{}, {}]", p,
                                 seen.layer, seen.expert, p / experts, p % experts));
  }
}

Visibility visibility_of(const Pool& pool, double foreign) {
  Visibility result;
  for (const std::vector<int32_t>& slots : pool.slots) {
    result.emplace_back(slots.size(), foreign);
    std::fill_n(result.back().begin(), pool.experts_per_layer, 1.0);
  }
  return result;
}

}  // namespace

Pool vanilla_pool(const Config& source, const ModelSpec& spec) {
  Pool pool;
  pool.base_model_type = source.string("model_type", "");
  pool.base_architectures = source.strings("architectures");
  pool.moe_layers = spec.moe_layers();
  pool.experts_per_layer = spec.experts;
  const auto layers = static_cast<int32_t>(spec.num_moe_layers()),
             experts = static_cast<int32_t>(spec.experts);
  for (int32_t layer = 0; layer < layers; ++layer) {
    std::vector<int32_t> own(experts);
    std::iota(own.begin(), own.end(), layer * experts);
    pool.slots.push_back(std::move(own));
    for (int32_t expert = 0; expert < experts; ++expert) pool.home.push_back({layer, expert});
  }
  pool.topology = {
      .name = "vanilla", .layers = layers, .experts = experts, .shift = experts, .window = experts};
  return pool;
}

std::vector<std::string> pool_faults(const Pool& pool, int64_t experts_per_token) {
  std::vector<std::string> faults;
  const int64_t layers = pool.num_moe_layers(), experts = pool.experts_per_layer;
  if (layers == 0 || experts < 1)
    return {fmt::format("it has {} layers of {} experts, wanted at least one", layers, experts)};
  check_homes(pool, faults);
  std::vector<bool> seen(pool.home.size());
  for (int64_t layer = 0; layer < layers; ++layer)
    check_layer(pool, layer, experts_per_token, seen, faults);
  return faults;
}

void check_pool(const Pool& pool, int64_t experts_per_token) {
  const std::vector<std::string> faults = pool_faults(pool, experts_per_token);
  if (!faults.empty()) fail("pool", "{}", join_some(faults));
}

Visibility closed_visibility(const Pool& pool) { return visibility_of(pool, 0); }
Visibility open_visibility(const Pool& pool) { return visibility_of(pool, 1); }

std::vector<int64_t> components(const Slots& slots) {
  std::vector<int64_t> parent(slots.size());
  std::iota(parent.begin(), parent.end(), 0);
  const auto root = [&](int64_t layer) {
    while (parent[layer] != layer) layer = parent[layer] = parent[parent[layer]];
    return layer;
  };
  std::unordered_map<int32_t, int64_t> first;  // layer that lists an expert
  for (size_t layer = 0; layer < slots.size(); ++layer) {
    for (int32_t p : slots[layer]) {
      const int64_t a = root(first.emplace(p, layer).first->second), b = root(layer);
      parent[std::max(a, b)] = std::min(a, b);
    }
  }
  for (size_t layer = 0; layer < slots.size(); ++layer) parent[layer] = root(layer);
  return parent;
}

std::vector<int64_t> sharing(const Slots& slots, int64_t num_physical) {
  std::vector<int64_t> result(num_physical);
  for (const std::vector<int32_t>& layer : slots) {
    for (int32_t p : layer) ++result[p];
  }
  return result;
}

std::vector<double> exposure(const Visibility& visibility, const Slots& slots,
                             int64_t num_physical) {
  std::vector<double> result(num_physical);
  for (size_t layer = 0; layer < slots.size(); ++layer) {
    const std::vector<double>& m = visibility[layer];
    const double open = std::accumulate(m.begin(), m.end(), 0.0);
    for (size_t slot = 0; slot < m.size(); ++slot) result[slots[layer][slot]] += m[slot] / open;
  }
  return result;
}

std::vector<double> target_share(const std::vector<double>& exposure, const Slots& slots,
                                 double kappa) {
  const std::vector<int64_t> component = components(slots);
  std::vector<int64_t> of_expert(exposure.size(), -1);
  std::vector<double> layers(slots.size()),
      total(slots.size());  // per component, at its lowest layer
  for (size_t layer = 0; layer < slots.size(); ++layer) {
    layers[component[layer]] += 1;
    for (int32_t p : slots[layer]) of_expert[p] = component[layer];
  }
  std::vector<double> result(exposure.size());
  for (size_t p = 0; p < exposure.size(); ++p) {
    if (of_expert[p] < 0 || !(exposure[p] > 0)) continue;
    result[p] = std::pow(exposure[p], kappa);
    total[of_expert[p]] += result[p];
  }
  for (size_t p = 0; p < exposure.size(); ++p) {
    if (of_expert[p] < 0 || !(exposure[p] > 0)) continue;
    result[p] *= layers[of_expert[p]] / (static_cast<double>(slots.size()) * total[of_expert[p]]);
  }
  return result;
}

}  // namespace moue
