// Names of the pool's tensors, its states and its options.
#include "core/text.h"
#include "moue/error.h"
#include "moue/pool.h"

#include <array>

namespace moue {

namespace {

constexpr std::array<std::string_view, 2> kBoundaries = {"ring", "clamp"};
constexpr std::array<std::string_view, 2> kModes = {"reuse", "expand"};
constexpr std::array<std::string_view, 2> kForeignInputs = {"home", "layer"};
constexpr std::array<std::string_view, 4> kStates = {"closed", "opened", "trained", "relocked"};

template <class Enum, size_t n>
Enum parse(std::string_view what, const std::array<std::string_view, n>& names,
           std::string_view name) {
  for (size_t i = 0; i < n; ++i) {
    if (names[i] == name) return static_cast<Enum>(i);
  }
  fail("pool", "{} is {}, wanted one of: {}", what, in_quotes(name), fmt::join(names, ", "));
}

std::string layer_name(int64_t layer, std::string_view rest) {
  return fmt::format("moue.layers.{}.{}", layer, rest);
}

}  // namespace

std::string_view to_string(Boundary boundary) { return kBoundaries[static_cast<size_t>(boundary)]; }
std::string_view to_string(Mode mode) { return kModes[static_cast<size_t>(mode)]; }
std::string_view to_string(ForeignInput input) {
  return kForeignInputs[static_cast<size_t>(input)];
}
std::string_view to_string(PoolState state) { return kStates[static_cast<size_t>(state)]; }

PoolState pool_state(std::string_view name) {
  return parse<PoolState>("the pool's state", kStates, name);
}
Boundary boundary_of(std::string_view name) {
  return parse<Boundary>("boundary", kBoundaries, name);
}
Mode mode_of(std::string_view name) { return parse<Mode>("mode", kModes, name); }
ForeignInput foreign_input_of(std::string_view name) {
  return parse<ForeignInput>("foreign_input", kForeignInputs, name);
}

namespace names {

std::string router_weight(int64_t layer) { return layer_name(layer, "router.weight"); }
std::string router_bias(int64_t layer) { return layer_name(layer, "router.bias"); }
std::string router_scale(int64_t layer) { return layer_name(layer, "router.scale"); }
std::string router_visibility(int64_t layer) { return layer_name(layer, "router.visibility"); }
std::string router_correction(int64_t layer) { return layer_name(layer, "router.correction"); }
std::string trajectory_gain(int64_t layer) { return layer_name(layer, "trajectory.gain"); }

}  // namespace names

std::vector<ExpertTensor> expert_tensors(int64_t j, const ModelSpec& spec) {
  const int64_t F = spec.expert_width, D = spec.width;
  const auto name = [j](const char* rest) { return fmt::format("moue.experts.{}.{}", j, rest); };
  std::vector<ExpertTensor> result = {{Role::ExpertGate, name("gate.weight"), {F, D}},
                                      {Role::ExpertUp, name("up.weight"), {F, D}},
                                      {Role::ExpertDown, name("down.weight"), {D, F}}};
  if (!spec.expert_bias) return result;
  result.push_back({Role::ExpertGateBias, name("gate.bias"), {F}});
  result.push_back({Role::ExpertUpBias, name("up.bias"), {F}});
  result.push_back({Role::ExpertDownBias, name("down.bias"), {D}});
  return result;
}

bool is_expert_tensor(std::string_view name) { return name.starts_with("moue.experts."); }

bool is_pool_tensor(std::string_view name) { return name.starts_with("moue."); }

std::vector<PoolTensor> pool_tensors(const Pool& pool, const ModelSpec& spec) {
  std::vector<PoolTensor> result;
  for (int64_t layer = 0; layer < pool.num_moe_layers(); ++layer) {
    const int64_t foreign = pool.num_foreign(layer);
    result.push_back({names::router_weight(layer), {foreign, spec.width}});
    result.push_back({names::router_bias(layer), {foreign}});
    result.push_back({names::router_scale(layer), {foreign}});
    result.push_back({names::router_visibility(layer), {foreign}});
    if (spec.router.correction) result.push_back({names::router_correction(layer), {foreign}});
    result.push_back({names::trajectory_gain(layer), {pool.state_dim}});
  }
  result.push_back({names::kKey, {pool.num_physical(), pool.state_dim}});
  result.push_back({names::kQuery, {pool.num_physical(), pool.state_dim}});
  result.push_back({names::kDecay, {pool.state_dim}});
  result.push_back({names::kPoolBias, {pool.num_physical()}});
  return result;
}

}  // namespace moue
