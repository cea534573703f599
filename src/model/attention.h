// Attention of a layer: the kind its family gives it.
#pragma once

#include <ATen/core/Tensor.h>

#include "model/rope.h"
#include "model/weights.h"

namespace moue {

/// x [T, D], T = batch * length -> attention output [T, D].
at::Tensor attention(const at::Tensor& x_TD, int64_t batch, int64_t layer, const ModelSpec& spec,
                     const Positions& positions, Weights& weights);

}  // namespace moue
