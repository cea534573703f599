// What tells one conversion from another: two with the same key write the same bytes.
#pragma once

#include <string>

#include "moue/convert.h"
#include "moue/pool.h"
#include "moue/statistics.h"

namespace moue {

/// 64 digits of tool, settings, pool, statistics and every file of the source (size, time of
/// change).
std::string job_key(const Checkpoint& source, const Pool& pool, const Statistics* statistics,
                    const ConvertOptions& options);

}  // namespace moue
