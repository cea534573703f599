// What a plan costs: bytes to write, router rows.
#pragma once

#include "moue/plan.h"

namespace moue {

/// A router takes a noticeable part of a token's work from here on.
inline constexpr double kMuchRouter = 0.02;

struct Cost {
  int64_t new_bytes = 0;     ///< of tensors that convert adds
  int64_t expert_bytes = 0;  ///< of those, the new experts
  int64_t router_bytes = 0;  ///< of all router tensors, home and foreign
  double router_share = 0;   ///< router rows among a token's active parameters
};

Cost cost_of(const Pool& pool, const Checkpoint& source, const Claims& claims,
             const ModelSpec& spec);

/// A warning where the router's share is above kMuchRouter, else "".
std::string router_warning(const Cost& cost);

}  // namespace moue
