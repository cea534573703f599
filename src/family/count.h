// How many parameters a checkpoint has, by role, and how many a token uses.
#pragma once

#include "moue/family.h"

#include <cstdint>
#include <vector>

namespace moue {

struct RoleCount {
  Role role;
  int64_t tensors = 0;
  int64_t parameters = 0;
  int64_t active = 0;  ///< of a token: all but the routed experts it does not choose
  uint64_t bytes = 0;
};

struct Counts {
  std::vector<RoleCount> roles;    ///< those present, in the order of Role
  std::vector<int64_t> per_layer;  ///< parameters of each layer
  int64_t parameters = 0;  ///< without what is ignored, and without a second copy of a tied head
  int64_t active = 0;
};

int64_t num_elements(const TensorInfo& tensor);

/// Tensors of the family; the pool's are not counted.
Counts count_parameters(const Checkpoint& checkpoint, const Claims& claims, const ModelSpec& spec);

}  // namespace moue
