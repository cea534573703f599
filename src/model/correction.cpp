// The selection bias that some families add to their scores.
#include "model/correction.h"

#include <ATen/ATen.h>

#include "moue/error.h"

namespace moue {

std::vector<at::Tensor> read_corrections(const Checkpoint& checkpoint, const Claims& claims,
                                         const ModelSpec& spec, const Pool& pool, bool is_moue) {
  std::vector<at::Tensor> corrections(pool.slots.size());
  if (!spec.router.correction) return corrections;
  for (int64_t layer = 0; layer < pool.num_moe_layers(); ++layer) {
    std::vector<float> values(pool.slots[layer].size());
    const std::span home = std::span(values).first(pool.experts_per_layer);
    const std::span foreign = std::span(values).subspan(pool.experts_per_layer);
    const auto slice = claims.slice(Role::RouterCorrection, pool.moe_layers[layer]);
    if (!slice || slice->rows * slice->columns != pool.experts_per_layer) {
      fail("model", "layer {} has no correction of {} experts, the family has one",
           pool.moe_layers[layer], pool.experts_per_layer);
    }
    read_slice(checkpoint, *slice, home);
    if (is_moue && !foreign.empty())
      checkpoint.read(checkpoint.at(names::router_correction(layer)), 0,
                      std::as_writable_bytes(foreign));
    corrections[layer] = at::tensor(values, at::kFloat);
  }
  return corrections;
}

}  // namespace moue
