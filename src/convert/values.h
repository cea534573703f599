// The start values of everything a MoUE adds to its source.
#pragma once

#include "moue/checkpoint.h"
#include "moue/family.h"
#include "moue/pool.h"
#include "moue/statistics.h"

#include <cstdint>
#include <functional>
#include <vector>

namespace moue {

/// Makes one tensor's values when its turn to be written comes.
using MakeValues = std::function<std::vector<float>()>;

/// The values of pool_tensors(pool, spec), in its order: foreign router rows, and biases of the
/// choice, as their home layers have them; beta, a and the correction from `statistics` (null: home
/// layer's router bias or 0, 1, home layer's correction); visibility, gain and pool bias 0, keys
/// and queries drawn, decay as the method says. The result computes what the source computes.
/// Arguments must outlive the result. A maker throws Error for source numbers that are not finite.
std::vector<MakeValues> closed_values(const Checkpoint& source, const Claims& claims,
                                      const Pool& pool, const ModelSpec& spec,
                                      const Statistics* statistics, uint64_t seed);

/// decay_logit of channel i: logit of 0.5 (0.97 / 0.5)^(i / max(1, state_dim - 1)).
std::vector<float> decay_start(int64_t state_dim);

}  // namespace moue
