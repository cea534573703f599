// A block that keeps its inputs alone and runs again on the way back.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

namespace moue {

/// What goes from block to block; undefined where the model has none.
struct Carried {
  at::Tensor hidden;  ///< [T, D]
  at::Tensor state;   ///< [T, state_dim] trajectory
  at::Tensor z_loss;  ///< scalar, of this block alone
};

/// `again` is set in the second run, in which nothing may be recorded.
using BlockRun = std::function<Carried(const Carried& in, bool again)>;

/// run(in) with the gradients it would have; between the two ways only hidden and state are kept.
/// The two runs must compute the same.
Carried recomputed(const Carried& in, BlockRun run);

}  // namespace moue
