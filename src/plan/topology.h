// Named topologies before the window is limited to the ring.
#pragma once

#include "moue/plan.h"

namespace moue {

inline constexpr int64_t kDefaultReach = 2;  ///< of "similarity"

/// As named_topology, but its window may be wider than the ring. group 0 takes the name's own.
Topology unlimited_topology(const std::string& name, int64_t layers, int64_t experts, int64_t group,
                            int64_t ring);

}  // namespace moue
