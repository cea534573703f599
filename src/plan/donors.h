// Donors: which experts of the source are copied in mode expand.
#pragma once

#include "moue/plan.h"

#include <vector>

namespace moue {

/// The donor of each of options.experts new experts, by depth where they are chosen by merit.
/// Throws Error where `load` lacks statistics.
std::vector<Home> choose_donors(const Checkpoint& source, const Claims& claims,
                                const ModelSpec& spec, const Statistics* statistics,
                                const PlanOptions& options);

}  // namespace moue
