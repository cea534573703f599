// Kernels as differentiable functions of tensors.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "kernels/element.h"

namespace moue {

kernels::Element element_of(const at::Tensor& x);
kernels::Where where_of(const at::Tensor& x);  ///< the current stream of x's device

/// autograd's Function takes no undefined tensors: absent ones travel as nullopt.
std::optional<at::Tensor> maybe(const at::Tensor& x);

/// float32 without gradient, where x is.
at::TensorOptions floats(const at::Tensor& x);

/// The projection to the vocabulary: logits = (weight hidden + bias) / divisor.
struct Head {
  at::Tensor weight;                  ///< [V, D]
  at::Tensor bias;                    ///< [V]; undefined where the family has none
  at::Tensor weight_grad, bias_grad;  ///< float32; undefined where nothing is trained
  double divisor = 1;
};

/// Logits of hidden [T, D]: [T, V].
at::Tensor logits_of(const at::Tensor& hidden, const Head& head);

/// Whose logits the student's are to approach, by how much (kernels/distillation.h).
struct Teaching {
  at::Tensor hidden;  ///< [T, its width]
  Head head;          ///< of the same vocabulary
  double share = 0;   ///< of the divergence in the loss; the rest is cross-entropy
  double temperature = 1;
  at::Tensor divergence;  ///< out: float32 [T], unscaled
};

/// scale * summed cross-entropy of hidden [T, D] against target [T] int64 (negative: not counted)
/// under the head, a float32 scalar; mixed with the divergence from a teacher where there is one.
/// Logits exist a chunk at a time. The head's gradients are added in backward; token_loss (float32
/// [T]) receives the unscaled cross-entropies.
at::Tensor linear_cross_entropy(const at::Tensor& hidden, const Head& head,
                                const at::Tensor& target, double scale, at::Tensor& token_loss,
                                Teaching* teaching = nullptr);

}  // namespace moue
