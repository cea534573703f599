// What tells one conversion from another: two with the same key write the same bytes.
#pragma once

#include <string>

#include "convert/layout.h"
#include "moue/convert.h"
#include "moue/statistics.h"

namespace moue {

/// 64 digits of tool, settings, layout, config of the result, statistics and every file of the
/// source (size, time of change).
std::string job_key(const Job& job, const Statistics* statistics, const ConvertOptions& options);

}  // namespace moue
