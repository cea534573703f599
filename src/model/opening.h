// What opening a closed pool would do, before it is done.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "moue/model.h"

namespace moue {

struct OpeningEffect {
  std::vector<double> changed;  ///< per MoE layer: share of tokens that would choose a foreign
                                ///< slot, the inputs of the layer held fixed
  double loss_closed = 0;
  double loss_open = 0;  ///< everything open at once
};

/// On windows [n, length + 1] of int64, batch windows a pass; losses of the targets that `mask_NT`
/// (may be undefined) counts. The model must be closed, and is again afterwards.
OpeningEffect effect_of_opening(Model& model, const at::Tensor& windows_NT1, int64_t batch,
                                const at::Tensor& mask_NT = {});

}  // namespace moue
