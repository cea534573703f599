// What a plan costs: bytes to write, router rows.
#include "plan/cost.h"

#include "family/count.h"
#include "pool/new_experts.h"

#include <fmt/format.h>

#include <functional>
#include <numeric>

namespace moue {

namespace {

int64_t float_bytes(const PoolTensor& tensor) {
  return std::accumulate(tensor.shape.begin(), tensor.shape.end(),
                         static_cast<int64_t>(sizeof(float)), std::multiplies<>());
}

int64_t num_rows(const Slots& slots) {
  int64_t rows = 0;
  for (const std::vector<int32_t>& layer : slots) rows += static_cast<int64_t>(layer.size());
  return rows;
}

}  // namespace

Cost cost_of(const Pool& pool, const Checkpoint& source, const Claims& claims,
             const ModelSpec& spec) {
  Cost cost;
  for (const PoolTensor& tensor : pool_tensors(pool, spec)) {
    cost.new_bytes += float_bytes(tensor);
    if (tensor.name.find(".router.") != std::string::npos) cost.router_bytes += float_bytes(tensor);
  }
  for (const int64_t layer : pool.moe_layers)
    cost.router_bytes += static_cast<int64_t>(claims.at(Role::Router, layer).bytes);
  for (const NewTensor& tensor : new_tensors(claims, pool, spec))
    cost.expert_bytes += static_cast<int64_t>(tensor.bytes());
  cost.new_bytes += cost.expert_bytes;
  const int64_t home = pool.num_source(), all = num_rows(pool.slots);
  const int64_t active = count_parameters(source, claims, spec).active + (all - home) * spec.width;
  cost.router_share = static_cast<double>(all * spec.width) / static_cast<double>(active);
  return cost;
}

std::string router_warning(const Cost& cost) {
  if (cost.router_share <= kMuchRouter) return "";
  return fmt::format(
      "routers take {:.1f} % of a token's active parameters, more than {:.0f} %: a smaller window "
      "costs less",
      100 * cost.router_share, 100 * kMuchRouter);
}

}  // namespace moue
