// Computes the tensors of a closed MoUE from its source's routers, its statistics and a seed.
#include "convert/values.h"

#include "core/normal.h"
#include "moue/error.h"

#include <algorithm>
#include <cmath>

namespace moue {

namespace {

using Values = std::vector<std::vector<float>>;

// Measured numbers of a layer as they are stored, or `start` for each foreign slot.
std::vector<float> measured(const std::vector<std::vector<double>>* by_layer, int64_t layer,
                            size_t count, float start) {
  if (by_layer == nullptr) return std::vector<float>(count, start);
  const std::vector<double>& row = (*by_layer)[layer];
  return {row.begin(), row.end()};
}

void add_layer(Values& values, const Pool& pool, int64_t layer, std::vector<float> rows,
               const Statistics* statistics) {
  const auto foreign = static_cast<size_t>(pool.num_foreign(layer));
  values.push_back(std::move(rows));
  values.push_back(measured(statistics ? &statistics->beta : nullptr, layer, foreign, 0));
  values.push_back(measured(statistics ? &statistics->scale : nullptr, layer, foreign, 1));
  values.emplace_back(foreign, 0.0F);                              // visibility
  values.emplace_back(static_cast<size_t>(pool.state_dim), 0.0F);  // gain
}

}  // namespace

std::vector<float> router_rows(const Checkpoint& source, const Claims& claims, const Pool& pool,
                               int64_t moe_layer) {
  const TensorInfo& router = claims.at(Role::Router, pool.moe_layers[moe_layer]);
  const std::vector<double> values = source.files()[router.file].values(router.name);
  const auto bad = std::ranges::find_if(values, [](double value) { return !std::isfinite(value); });
  if (bad != values.end()) {
    fail("convert", "{} in {} holds {} at index {}, wanted finite numbers; is the source damaged?",
         router.name, source.file_names()[router.file], *bad, bad - values.begin());
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
                                              const Pool& pool, int64_t width,
                                              const Statistics* statistics, uint64_t seed) {
  std::vector<std::vector<float>> routers;
  for (int64_t layer = 0; layer < pool.num_moe_layers(); ++layer) {
    routers.push_back(router_rows(source, claims, pool, layer));
  }
  Values values;
  for (int64_t layer = 0; layer < pool.num_moe_layers(); ++layer) {
    add_layer(values, pool, layer, foreign_rows(routers, pool, layer, width), statistics);
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
