// inspect: what a checkpoint holds: family, sizes, parameters per role, layers, shards, faults.
#pragma once

#include "moue/checkpoint.h"
#include "moue/family.h"
#include "moue/report.h"

namespace moue {

/// Reads headers only. Facts: family, architecture, dtype, parameters (total, active per token),
/// bytes, shards; tables: roles, layers, shards; for a MoUE also its pool. Throws Error with all
/// faults of the checkpoint.
Report inspect(const Checkpoint& source, const Family& family);

}  // namespace moue
