// Norms: RMSNorm and LayerNorm, whole or in two halves, so that an expert can be fed through
// another layer's second half.
#pragma once

#include <ATen/core/Tensor.h>

#include "moue/spec.h"

namespace moue {

/// [D] each; bias undefined where the norm has none.
struct NormWeights {
  at::Tensor gain, bias;
};

/// x [..., D] -> gain * xhat + bias, in x's dtype.
at::Tensor norm(const at::Tensor& x, const NormSpec& spec, const NormWeights& weights);

/// The first half, xhat: in x's dtype, or in float32 where the family rounds after the gain only.
at::Tensor normalise(const at::Tensor& x, const NormSpec& spec);

/// The second half of a norm, rounded to `dtype`.
at::Tensor apply_gain(const at::Tensor& xhat, const NormWeights& weights, at::ScalarType dtype);

/// x [..., D] -> gain * xhat, or xhat where gain is undefined. Order of casts as in
/// kernels/rms_norm.h.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& gain, double eps);

}  // namespace moue
