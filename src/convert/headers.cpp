// The headers of a MoUE that is not written yet.
#include <numeric>

#include "moue/convert.h"

namespace moue {

Checkpoint planned_headers(const Checkpoint& source, const Plan& plan) {
  const ModelSpec spec = family_of(source.config()).spec(source.config());
  auto contents = std::make_shared<Checkpoint::Contents>(Checkpoint::Contents{
      source.directory(), with_pool(source.config(), plan.pool), {}, {}, {}, source.tensors(), {}});
  const auto add = [&](const std::string& name, Dtype dtype, const std::vector<int64_t>& shape) {
    const auto count =
        std::accumulate(shape.begin(), shape.end(), uint64_t{1}, std::multiplies<uint64_t>());
    contents->tensors.push_back({.name = name,
                                 .dtype = dtype,
                                 .shape = shape,
                                 .bytes = count * static_cast<uint64_t>(dtype_bits(dtype)) / 8});
  };
  const Claims claims = claim(source, family_of(source.config()));
  const Slice donor = claims.slice(Role::ExpertDown, plan.pool.moe_layers.at(0), 0).value();
  const Dtype dtype = claims.is_packed() ? Dtype::BF16 : donor.tensor->dtype;
  for (int64_t j = 0; j < plan.pool.num_new(); ++j) {
    for (const ExpertTensor& tensor : expert_tensors(j, spec))
      add(tensor.name, dtype, tensor.shape);
  }
  for (const PoolTensor& tensor : pool_tensors(plan.pool, spec))
    add(tensor.name, Dtype::F32, tensor.shape);
  for (size_t i = 0; i < contents->tensors.size(); ++i)
    contents->by_name.emplace(contents->tensors[i].name, static_cast<uint32_t>(i));
  return Checkpoint(std::move(contents));
}

}  // namespace moue
