// Whether a checkpoint holds what its pool says.
#include "core/text.h"
#include "moue/checkpoint.h"
#include "moue/error.h"
#include "moue/pool.h"
#include "pool/new_experts.h"

namespace moue {

namespace {

std::vector<std::string> spec_faults(const Pool& pool, const ModelSpec& spec) {
  std::vector<std::string> faults;
  if (pool.experts_per_layer != spec.experts) {
    faults.push_back(fmt::format("experts_per_layer is {}, wanted the family's {}",
                                 pool.experts_per_layer, spec.experts));
  }
  if (pool.moe_layers != spec.moe_layers()) {
    faults.push_back(fmt::format("moe_layers are [{}], wanted the family's [{}]",
                                 fmt::join(pool.moe_layers, ", "),
                                 fmt::join(spec.moe_layers(), ", ")));
  }
  return faults;
}

// Counts the new experts' tensors that are there.
size_t check_experts(const Pool& pool, const ModelSpec& spec, const Checkpoint& checkpoint,
                     std::vector<std::string>& faults) {
  size_t found = 0;
  for (int64_t j = 0; j < pool.num_new(); ++j) {
    for (const ExpertTensor& wanted : expert_tensors(j, spec)) {
      const TensorInfo* tensor = checkpoint.find(wanted.name);
      found += tensor != nullptr;
      if (!tensor) {
        faults.push_back(wanted.name + " is missing");
      } else if (tensor->shape != wanted.shape || !holds_weights(tensor->dtype)) {
        faults.push_back(fmt::format("{} is {} {}, wanted a float type {}", wanted.name,
                                     dtype_name(tensor->dtype), shape_text(tensor->shape),
                                     shape_text(wanted.shape)));
      }
    }
  }
  return found;
}

}  // namespace

void check_pool_fits(const Pool& pool, const ModelSpec& spec, const Checkpoint& checkpoint) {
  std::vector<std::string> faults = spec_faults(pool, spec);
  size_t found = check_experts(pool, spec, checkpoint, faults);
  for (const PoolTensor& wanted : pool_tensors(pool, spec)) {
    const TensorInfo* tensor = checkpoint.find(wanted.name);
    if (!tensor) {
      faults.push_back(wanted.name + " is missing");
      continue;
    }
    ++found;
    if (tensor->shape == wanted.shape && tensor->dtype == Dtype::F32) continue;
    faults.push_back(fmt::format("{} is {} {}, wanted F32 {}", wanted.name,
                                 dtype_name(tensor->dtype), shape_text(tensor->shape),
                                 shape_text(wanted.shape)));
  }
  size_t present = 0;
  for (const TensorInfo& tensor : checkpoint.tensors()) present += is_pool_tensor(tensor.name);
  if (present > found)
    faults.push_back(counted(present - found, "tensor") +
                     " under 'moue.' that the pool does not name");
  if (!faults.empty()) {
    fail("pool", "{} does not fit its pool: {}; was it changed by hand?",
         checkpoint.directory().string(), join_some(faults));
  }
}

}  // namespace moue
