// Mistral's own form of a Mixtral: params.json and other names, seen as transformers has it.
#pragma once

#include "moue/checkpoint.h"

namespace moue {

/// Gives the contents, so far as the files have them, transformers' config, names and shapes. Both
/// generations of names: experts one by one ("feed_forward.experts.0.w1.weight") or stacked
/// ("block_sparse_moe.w1"). Throws Error listing what is not known.
void translate(Checkpoint::Contents& contents);

}  // namespace moue
