// Causal softmax attention of heads that are ready: what the softmax kinds of attention share.
#pragma once

#include <ATen/core/Tensor.h>

namespace moue {

/// q [B, H, length, A], k [B, G, length, A], v [B, G, length, U], H a multiple of G -> [B * length,
/// H * U]. A token sees `window` positions, itself included; 0 = all before it. sinks [H] (may be
/// undefined): a logit per head that joins the softmax and takes its share away.
at::Tensor softmax_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             double scale, int64_t window, const at::Tensor& sinks);

}  // namespace moue
