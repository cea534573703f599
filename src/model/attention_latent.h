// Multi-head latent attention: keys and values of all heads from one narrow vector per token.
// (DeepSeek-V2, arXiv 2405.04434)
#pragma once

#include <ATen/core/Tensor.h>

#include "model/rope.h"

namespace moue {

/// N plain, P rotary channels of a query and key head, U of a value head, Q and R the ranks.
/// Undefined where the family has none.
struct LatentWeights {
  at::Tensor query_down, query_down_bias, query_norm;  ///< [Q, D], [Q], [Q]; none without a rank
  at::Tensor query_up;                                 ///< [H (N + P), Q], or [H (N + P), D]
  at::Tensor down, down_bias;                          ///< [R + P, D], [R + P]; the shared key last
  at::Tensor norm;                                     ///< [R]
  at::Tensor up;                                       ///< [H (N + U), R]
  at::Tensor output, output_bias;                      ///< [D, H U], [D]
};

/// x [B * length, D] -> [B * length, D]. eps: of the norms inside.
at::Tensor attention_latent(const at::Tensor& x_TD, int64_t batch, const AttentionSpec& spec,
                            int64_t layer, double eps, const Positions& positions,
                            const LatentWeights& weights);

}  // namespace moue
