// What reports say of a pool.
#pragma once

#include "moue/pool.h"
#include "moue/report.h"

#include <vector>

namespace moue {

/// Topology, slots, sharing, components, state.
std::vector<Fact> pool_facts(const Pool& pool);

/// Per MoE layer: slots, how far its donors are, its component.
Table slots_table(const Pool& pool);

int64_t num_components(const Slots& slots);

}  // namespace moue
