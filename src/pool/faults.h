// What is wrong with a pool, in words.
#pragma once

#include "moue/pool.h"

#include <string>
#include <vector>

namespace moue {

/// Every fault of homes and slots; empty for a sound pool.
std::vector<std::string> pool_faults(const Pool& pool, int64_t experts_per_token);

}  // namespace moue
