// Whether an ordinary model can compute what a MoUE computes.
#pragma once

#include <string>
#include <vector>

#include "moue/checkpoint.h"
#include "moue/pool.h"

namespace moue {

/// What each layer has that an ordinary routed block lacks, a line a layer; empty where the
/// ordinary model computes the same, bit for bit. Numbers decide, not the state's name: a foreign
/// slot of visibility 0 is never chosen and can be left out; one that is open cannot, nor a gain of
/// the trajectory state (but in the first MoE layer, where that state is 0), nor a selection bias
/// of the layer's own experts.
std::vector<std::string> inexpressible_layers(const Checkpoint& moue, const Pool& pool);

}  // namespace moue
