// Lightning attention: no softmax, a state per head that decays from token to token. (MiniMax-01,
// arXiv 2501.08313)
#pragma once

#include <ATen/core/Tensor.h>

#include "moue/spec.h"

namespace moue {

struct LinearWeights {
  at::Tensor input;   ///< [H 3A, D]: query, key, value of head 0, of head 1, ...
  at::Tensor norm;    ///< [H A]
  at::Tensor gate;    ///< [H A, D]
  at::Tensor output;  ///< [D, H A]
};

/// Decay rates of a layer's heads, [H] float32 on the host: state *= exp(-rate) with every token.
at::Tensor decay_rates(int64_t heads, int64_t layer, int64_t layers);

/// x [B * length, D] -> [B * length, D]. rate [H] float32 where x is. eps: of the norm inside.
at::Tensor attention_linear(const at::Tensor& x_TD, int64_t batch, const AttentionSpec& spec,
                            const at::Tensor& rate, double eps, const LinearWeights& weights);

}  // namespace moue
