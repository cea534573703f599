// What a run from scratch trains: initial weights, and the MoUE made of them.
#pragma once

#include "moue/recipe.h"

namespace moue {

/// Writes OUT/init and, where the run is no control, converts it to OUT/model; what stands there
/// already must be the same. The recipe has its paths.
void make_from_scratch(const Recipe& recipe);

/// Names, shapes and config of what the run trains: the model where it stands, else what would be
/// made of `init` or of the source.
Checkpoint headers_for_training(const Recipe& recipe);

}  // namespace moue
