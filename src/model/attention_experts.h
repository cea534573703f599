// Attention by experts: each token is answered by K of E attentions that share keys and values and
// own their query and output projections. (JetMoE, arXiv 2404.07413)
#pragma once

#include <ATen/core/Tensor.h>

#include "model/rope.h"

namespace moue {

struct AttentionExpertsWeights {
  at::Tensor router;     ///< [E, D]
  at::Tensor input;      ///< [E, G A, D]
  at::Tensor output;     ///< [E, D, G A]
  at::Tensor bias;       ///< [D], added to the sum
  at::Tensor key_value;  ///< [2 G A, D]
};

/// x [B * length, D] -> [B * length, D], K experts a token.
at::Tensor attention_experts(const at::Tensor& x_TD, int64_t batch, const AttentionSpec& spec,
                             int64_t layer, int64_t experts_per_token, const Positions& positions,
                             const AttentionExpertsWeights& weights);

}  // namespace moue
