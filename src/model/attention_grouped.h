// Grouped-query softmax attention.
#pragma once

#include <ATen/core/Tensor.h>

#include "model/rope.h"

namespace moue {

/// Undefined where the family has none.
struct GroupedWeights {
  at::Tensor qkv;                   ///< [(H + 2G) A, D], the three one under the other
  at::Tensor qkv_bias;              ///< [(H + 2G) A]
  at::Tensor output;                ///< [D, H A]
  at::Tensor output_bias;           ///< [D]
  at::Tensor query_norm, key_norm;  ///< [A] each, or [H A] and [G A]
  at::Tensor sinks;                 ///< [H]
};

/// x [B * length, D] -> [B * length, D]. eps: of the QK norm.
at::Tensor attention_grouped(const at::Tensor& x_TD, int64_t batch, const AttentionSpec& spec,
                             int64_t layer, double eps, const Positions& positions,
                             const GroupedWeights& weights);

}  // namespace moue
