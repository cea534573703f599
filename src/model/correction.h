// The selection bias that some families add to their scores: state of the model, trained by no
// gradient.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "moue/checkpoint.h"
#include "moue/family.h"
#include "moue/pool.h"

namespace moue {

/// Per MoE layer float32 [S] on the host: the source's for home slots, the pool's for foreign ones.
/// Undefined tensors where the family has no correction.
std::vector<at::Tensor> read_corrections(const Checkpoint& checkpoint, const Claims& claims,
                                         const ModelSpec& spec, const Pool& pool, bool is_moue);

}  // namespace moue
