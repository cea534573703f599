// Computes the tensors of a closed MoUE from its source's routers, its statistics and a seed.
#include "convert/values.h"

#include "core/normal.h"
#include "moue/error.h"

#include <algorithm>
#include <cmath>

namespace moue {

namespace {

std::vector<float> zeros(int64_t count) { return std::vector<float>(static_cast<size_t>(count)); }

// Measured numbers of a layer as they are stored.
std::vector<float> narrowed(const std::vector<double>& values) {
  return {values.begin(), values.end()};
}

class Starts {
 public:
  Starts(const Checkpoint& source, const Claims& claims, const Pool& pool)
      : source_(source), claims_(claims), pool_(pool) {}

  // What the home layers of a layer's foreign slots have under the role: one row of each.
  std::vector<float> at_home(Role role, int64_t moe_layer) const {
    const std::vector<int32_t>& slots = pool_.slots[moe_layer];
    std::vector<float> values;
    for (size_t slot = pool_.experts_per_layer; slot < slots.size(); ++slot) {
      const Home home = pool_.home[slots[slot]];
      Slice row = whole_slice(claims_.at(role, pool_.moe_layers[home.layer]));
      row.rows = 1;
      row.offset = home.expert * row.row_stride;
      values.reserve((slots.size() - pool_.experts_per_layer) * static_cast<size_t>(row.columns));
      values.resize(values.size() + static_cast<size_t>(row.columns));
      const std::span<float> added = std::span(values).last(static_cast<size_t>(row.columns));
      read_slice(source_, row, added);
      check(row, added);
    }
    return values;
  }

 private:
  void check(const Slice& row, std::span<const float> values) const {
    const auto bad =
        std::ranges::find_if(values, [](float value) { return !std::isfinite(value); });
    if (bad == values.end()) return;
    fail("convert", "{} in {} holds {} at index {}, wanted finite numbers; is the source damaged?",
         row.tensor->name, source_.file_names()[row.tensor->file], *bad,
         row.offset + (bad - values.begin()));
  }

  const Checkpoint& source_;
  const Claims& claims_;
  const Pool& pool_;
};

void add_layer(std::vector<MakeValues>& values, const Starts& starts, const Pool& pool,
               int64_t layer, const RouterSpec& router, const Statistics* measured) {
  const int64_t foreign = pool.num_foreign(layer), state_dim = pool.state_dim;
  const auto at_home = [=](Role role) { return starts.at_home(role, layer); };
  values.push_back([=] { return at_home(Role::Router); });
  values.push_back([=, has_bias = router.bias] {
    if (measured) return narrowed(measured->beta[layer]);
    return has_bias ? at_home(Role::RouterBias) : zeros(foreign);
  });
  values.push_back([=] {
    return measured ? narrowed(measured->scale[layer])
                    : std::vector<float>(static_cast<size_t>(foreign), 1.0F);
  });
  values.push_back([=] { return zeros(foreign); });  // visibility
  if (router.correction) {
    values.push_back([=] {
      return measured ? narrowed(measured->correction[layer]) : at_home(Role::RouterCorrection);
    });
  }
  values.push_back([=] { return zeros(state_dim); });  // gain
}

}  // namespace

std::vector<float> decay_start(int64_t state_dim) {
  std::vector<float> logits(state_dim);
  const double steps = static_cast<double>(std::max<int64_t>(1, state_dim - 1));
  for (int64_t i = 0; i < state_dim; ++i) {
    const double lambda = 0.5 * std::pow(0.97 / 0.5, static_cast<double>(i) / steps);
    logits[i] = static_cast<float>(std::log(lambda / (1 - lambda)));
  }
  return logits;
}

std::vector<MakeValues> closed_values(const Checkpoint& source, const Claims& claims,
                                      const Pool& pool, const ModelSpec& spec,
                                      const Statistics* statistics, uint64_t seed) {
  const Starts starts(source, claims, pool);
  std::vector<MakeValues> values;
  for (int64_t layer = 0; layer < pool.num_moe_layers(); ++layer) {
    add_layer(values, starts, pool, layer, spec.router, statistics);
  }
  const int64_t physical = pool.num_physical(), state_dim = pool.state_dim;
  for (const char* name : {names::kKey, names::kQuery}) {
    values.push_back([=] {
      std::vector<float> drawn = zeros(physical * state_dim);
      fill_normal(drawn, seed, name, 1 / std::sqrt(static_cast<double>(state_dim)));
      return drawn;
    });
  }
  values.push_back([=] { return decay_start(state_dim); });
  values.push_back([=] { return zeros(physical); });  // pool bias
  return values;
}

}  // namespace moue
