// The "moue" block of config.json and of plan.json.
#pragma once

#include "moue/config.h"
#include "moue/pool.h"

#include <nlohmann/json_fwd.hpp>

namespace moue {

Config::Json block_of(const Pool& pool);

/// Reads and checks a block. Throws Error naming `origin`.
Pool pool_of(const Config::Json& block, const std::string& origin);

}  // namespace moue
