// How many parameters a checkpoint has, by role, and how many a token uses.
#include "family/count.h"

#include "moue/checkpoint.h"

#include <array>

namespace moue {

namespace {

constexpr size_t kRoles = static_cast<size_t>(Role::Ignored) + 1;

bool is_expert(Role role) {
  return (role >= Role::ExpertGate && role <= Role::ExpertGateUpBiasPairs) ||
         role == Role::AttentionExpertInput || role == Role::AttentionExpertOutput;
}

bool is_counted(Role role, const ModelSpec& spec) {
  return role != Role::Ignored && role != Role::Scale &&
         !(role == Role::OutputHead && spec.tied_head);
}

}  // namespace

int64_t num_elements(const TensorInfo& tensor) {
  int64_t count = 1;
  for (int64_t size : tensor.shape) count *= size;
  return count;
}

Counts count_parameters(const Checkpoint& checkpoint, const Claims& claims, const ModelSpec& spec) {
  std::array<RoleCount, kRoles> roles{};
  Counts counts;
  counts.per_layer.resize(spec.layers);
  for (size_t i = 0; i < checkpoint.tensors().size(); ++i) {
    const Claim& claim = claims.of_tensors()[i];
    if (!claim.row) continue;
    const TensorInfo& tensor = checkpoint.tensors()[i];
    const int64_t packed = claim.row->packing == Packing::Mxfp4 ? 2 : 1;
    const int64_t elements = num_elements(tensor) * packed;
    RoleCount& count = roles[static_cast<size_t>(claim.row->role)];
    ++count.tensors;
    count.bytes += tensor.bytes;
    if (!is_counted(claim.row->role, spec)) continue;
    count.parameters += elements;
    if (claim.layer >= 0) counts.per_layer[claim.layer] += elements;
  }
  for (size_t role = 0; role < kRoles; ++role) {
    RoleCount& count = roles[role];
    if (count.tensors == 0) continue;
    count.role = static_cast<Role>(role);
    count.active = is_expert(count.role) ? count.parameters / spec.experts * spec.experts_per_token
                                         : count.parameters;
    counts.parameters += count.parameters;
    counts.active += count.active;
    counts.roles.push_back(count);
  }
  return counts;
}

}  // namespace moue
