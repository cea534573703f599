// What stands between an FFN's two products, one function for dense blocks and one for experts.
#pragma once

#include <ATen/core/Tensor.h>

#include "moue/spec.h"

namespace moue {

/// The activation's kind and numbers.
struct ActivationSpec {
  Activation kind = Activation::Silu;
  double alpha = 1.702, limit = 7;  ///< Clamped
};
ActivationSpec activation_of(const ModelSpec& spec);

/// h [T, 2F] = [gate, up] -> [T, F], differentiable.
at::Tensor activate(const at::Tensor& h, const ActivationSpec& spec);

/// The same times weight [T] float32 (undefined: 1), outside autograd.
at::Tensor activation_forward(const at::Tensor& h, const at::Tensor& weight,
                              const ActivationSpec& spec);

/// Its backward, with the output again, which was not kept. dweight is undefined where weight is.
struct ActivationGradients {
  at::Tensor dh, out, dweight;
};
ActivationGradients activation_backward(const at::Tensor& h, const at::Tensor& weight,
                                        const at::Tensor& dout, const ActivationSpec& spec);

}  // namespace moue
