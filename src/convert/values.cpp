// Computes the tensors of a closed MoUE from its source's routers, its statistics and a seed.
#include "convert/values.h"

#include "core/normal.h"
#include "moue/error.h"

#include <algorithm>
#include <cmath>

namespace moue {

namespace {

using Values = std::vector<std::vector<float>>;

// Of every MoE layer, as its source has them: [experts, width], [experts], [experts].
struct Routers {
  Values rows, bias, correction;
};

Routers read_routers(const Checkpoint& source, const Claims& claims, const Pool& pool,
                     const ModelSpec& spec) {
  Routers routers;
  const std::vector<float> zeros(static_cast<size_t>(pool.experts_per_layer));
  for (int64_t layer = 0; layer < pool.num_moe_layers(); ++layer) {
    const auto read = [&](Role role) { return router_values(source, claims, pool, layer, role); };
    routers.rows.push_back(read(Role::Router));
    routers.bias.push_back(spec.router.bias ? read(Role::RouterBias) : zeros);
    if (spec.router.correction) routers.correction.push_back(read(Role::RouterCorrection));
  }
  return routers;
}

// Measured numbers of a layer as they are stored.
std::vector<float> narrowed(const std::vector<double>& values) {
  return {values.begin(), values.end()};
}

void add_layer(Values& values, const Pool& pool, int64_t layer, const ModelSpec& spec,
               const Routers& routers, const Statistics* measured) {
  const auto foreign = static_cast<size_t>(pool.num_foreign(layer));
  const auto at_home = [&](const Values& by_layer) {
    return foreign_rows(by_layer, pool, layer, 1);
  };
  values.push_back(foreign_rows(routers.rows, pool, layer, spec.width));
  values.push_back(measured ? narrowed(measured->beta[layer]) : at_home(routers.bias));
  values.push_back(measured ? narrowed(measured->scale[layer]) : std::vector<float>(foreign, 1.0F));
  values.emplace_back(foreign, 0.0F);  // visibility
  if (spec.router.correction) {
    values.push_back(measured ? narrowed(measured->correction[layer])
                              : at_home(routers.correction));
  }
  values.emplace_back(static_cast<size_t>(pool.state_dim), 0.0F);  // gain
}

}  // namespace

std::vector<float> router_values(const Checkpoint& source, const Claims& claims, const Pool& pool,
                                 int64_t moe_layer, Role role) {
  const TensorInfo& tensor = claims.at(role, pool.moe_layers[moe_layer]);
  const std::vector<double> values = source.files()[tensor.file].values(tensor.name);
  const auto bad = std::ranges::find_if(values, [](double value) { return !std::isfinite(value); });
  if (bad != values.end()) {
    fail("convert", "{} in {} holds {} at index {}, wanted finite numbers; is the source damaged?",
         tensor.name, source.file_names()[tensor.file], *bad, bad - values.begin());
  }
  return {values.begin(), values.end()};
}

std::vector<float> foreign_rows(const std::vector<std::vector<float>>& routers, const Pool& pool,
                                int64_t moe_layer, int64_t width) {
  std::vector<float> rows;
  rows.reserve(static_cast<size_t>(pool.num_foreign(moe_layer) * width));
  const std::vector<int32_t>& slots = pool.slots[moe_layer];
  for (size_t slot = pool.experts_per_layer; slot < slots.size(); ++slot) {
    const Home home = pool.home[slots[slot]];
    const auto row = routers[home.layer].begin() + home.expert * width;
    rows.insert(rows.end(), row, row + width);
  }
  return rows;
}

std::vector<float> decay_start(int64_t state_dim) {
  std::vector<float> logits(state_dim);
  const double steps = static_cast<double>(std::max<int64_t>(1, state_dim - 1));
  for (int64_t i = 0; i < state_dim; ++i) {
    const double lambda = 0.5 * std::pow(0.97 / 0.5, static_cast<double>(i) / steps);
    logits[i] = static_cast<float>(std::log(lambda / (1 - lambda)));
  }
  return logits;
}

std::vector<std::vector<float>> closed_values(const Checkpoint& source, const Claims& claims,
                                              const Pool& pool, const ModelSpec& spec,
                                              const Statistics* statistics, uint64_t seed) {
  const Routers routers = read_routers(source, claims, pool, spec);
  Values values;
  for (int64_t layer = 0; layer < pool.num_moe_layers(); ++layer) {
    add_layer(values, pool, layer, spec, routers, statistics);
  }
  const double deviation = 1 / std::sqrt(static_cast<double>(pool.state_dim));
  for (const char* name : {names::kKey, names::kQuery}) {
    std::vector<float> drawn(static_cast<size_t>(pool.num_physical() * pool.state_dim));
    fill_normal(drawn, seed, name, deviation);
    values.push_back(std::move(drawn));
  }
  values.push_back(decay_start(pool.state_dim));
  values.emplace_back(static_cast<size_t>(pool.num_physical()), 0.0F);  // pool bias
  return values;
}

}  // namespace moue
