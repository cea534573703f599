// Whether source, plan and statistics belong together.
#pragma once

#include "moue/checkpoint.h"
#include "moue/family.h"
#include "moue/plan.h"
#include "moue/statistics.h"

namespace moue {

/// Throws Error where the plan is of another source or does not fit it.
void check_plan(const Checkpoint& source, const Family& family, const ModelSpec& spec,
                const Plan& plan);

/// Throws Error where the statistics are of another source or plan, or hold numbers that are not
/// finite.
void check_statistics(const Statistics& statistics, const Plan& plan, const ModelSpec& spec);

/// Throws Error where files of the source are in no form to be linked, or have the names of new
/// files beside them.
void check_linkable(const Checkpoint& source);

}  // namespace moue
