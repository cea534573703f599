// inspect: what a checkpoint holds: family, sizes, parameters per role, layers, shards, faults.
#pragma once

#include "moue/checkpoint.h"
#include "moue/family.h"
#include "moue/report.h"

namespace moue {

/// Reads headers only. Facts: family, architecture, form, packing, dtype, parameters (total, active
/// per token), bytes, shards, how it routes and attends; tables: roles, layers, shards; for a MoUE
/// also its pool. Throws Error with all faults of the checkpoint.
Report inspect(const Checkpoint& source, const Family& family);

/// What each family supports: architectures, forms, router, attention.
Report families_report();
/// docs/families.md: the same, and every family's rows.
std::string families_reference();

}  // namespace moue
