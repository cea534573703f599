// Rotary positions: tables of angles for every kind of scaling, and the rotation itself.
#pragma once

#include <ATen/core/Tensor.h>

#include "moue/spec.h"

namespace moue {

/// cosine, sine [length, width / 2] float32 of positions 0..length-1; pairs of channels are (2i, 2i
/// + 1) where interleaved.
struct Positions {
  at::Tensor cosine, sine;
  bool interleaved = false;
};
Positions make_positions(const RopeSpec& rope, int64_t length, const at::TensorOptions& device);

/// x [B, length, heads, A] (a view of a projection) -> [B, heads, length, A]: as many channels as
/// there are angles, from `begin` on, turned by their position.
at::Tensor rope(const at::Tensor& x, const Positions& positions, int64_t begin = 0);

}  // namespace moue
