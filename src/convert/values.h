// The start values of everything a MoUE adds to its source.
#pragma once

#include "moue/checkpoint.h"
#include "moue/family.h"
#include "moue/pool.h"
#include "moue/statistics.h"

#include <cstdint>
#include <vector>

namespace moue {

/// The values of pool_tensors(pool, width), in its order: foreign router rows as their home layers
/// have them, beta and a from `statistics` (null: 0 and 1), visibility, gain and pool bias 0, keys
/// and queries drawn, decay as the method says. The result computes what the source computes.
std::vector<std::vector<float>> closed_values(const Checkpoint& source, const Claims& claims,
                                              const Pool& pool, int64_t width,
                                              const Statistics* statistics, uint64_t seed);

/// Every router row of a MoE layer as float32, whatever its dtype: [experts, width].
std::vector<float> router_rows(const Checkpoint& source, const Claims& claims, const Pool& pool,
                               int64_t moe_layer);

/// The rows of foreign experts of a layer, cut from the routers of their home layers.
std::vector<float> foreign_rows(const std::vector<std::vector<float>>& routers, const Pool& pool,
                                int64_t moe_layer, int64_t width);

/// decay_logit of channel i: logit of 0.5 (0.97 / 0.5)^(i / max(1, state_dim - 1)).
std::vector<float> decay_start(int64_t state_dim);

}  // namespace moue
