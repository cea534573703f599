// FFNs that every token takes: dense blocks and shared experts.
#pragma once

#include <ATen/core/Tensor.h>

#include "model/activation.h"

namespace moue {

struct DenseWeights {
  at::Tensor gate_up;  ///< [2F, D]
  at::Tensor down;     ///< [D, F]
  at::Tensor mix;      ///< [1, D]: how much of it a token takes; undefined: all
};

/// x [T, D] -> [T, D].
at::Tensor dense_ffn(const at::Tensor& x_TD, const ActivationSpec& activation,
                     const DenseWeights& weights);

}  // namespace moue
