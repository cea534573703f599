// Grouped-query softmax attention with rotary positions, optional QK norm and sliding window.
#pragma once

#include <ATen/core/Tensor.h>

#include "model/weights.h"

namespace moue {

/// cosine, sine [length, width / 2] float32 of positions 0..length-1.
struct Positions {
  at::Tensor cosine, sine;
};
Positions make_positions(const RopeSpec& rope, int64_t length, const at::TensorOptions& device);

/// x [T, D], T = batch * length -> attention output [T, D].
at::Tensor attention(const at::Tensor& x_TD, int64_t batch, int64_t layer, const ModelSpec& spec,
                     const Positions& positions, Weights& weights);

}  // namespace moue
