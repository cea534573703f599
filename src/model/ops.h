// Kernels as differentiable functions of tensors.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "kernels/element.h"
#include "moue/spec.h"

namespace moue {

kernels::Element element_of(const at::Tensor& x);
kernels::Where where_of(const at::Tensor& x);  ///< the current stream of x's device

/// autograd's Function takes no undefined tensors: absent ones travel as nullopt.
std::optional<at::Tensor> maybe(const at::Tensor& x);

/// x [..., D] -> gain * xhat, or xhat where gain is undefined. Order of casts as in
/// kernels/rms_norm.h.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& gain, double eps);

/// x [B, length, heads, A] (a view of a projection) -> [B, heads, length, A], turned by its
/// position. cosine, sine: [length, A / 2] float32.
at::Tensor rope(const at::Tensor& x, const at::Tensor& cosine, const at::Tensor& sine);

/// h [T, 2F] = [gate, up] -> silu(gate) * up [T, F].
at::Tensor swiglu(const at::Tensor& h);

/// scale * summed cross-entropy of hidden [T, D] against target [T] int64 (negative: not counted)
/// under head [V, D], a float32 scalar. Logits exist a chunk at a time. head_grad (float32 [V, D],
/// may be undefined) receives the head's gradient in backward; token_loss (float32 [T]) the
/// unscaled losses.
at::Tensor linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& head,
                                const at::Tensor& head_grad, const at::Tensor& target, double scale,
                                at::Tensor& token_loss);

}  // namespace moue
