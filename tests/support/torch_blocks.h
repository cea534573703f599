// A block of the model beside a plain formulation of it in float64, forward and backward.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

namespace moue::test {

/// Normal numbers, the same for the same seed; float64.
at::Tensor random_tensor(std::vector<int64_t> shape, uint64_t seed, double scale = 1);

/// [T, out] from its inputs and weights, differentiable in all of them.
using BlockFunction = std::function<at::Tensor(const std::vector<at::Tensor>&)>;

/// Largest differences, in units of the largest wanted number of each tensor.
struct BlockErrors {
  double output = 0;
  std::vector<double> gradients;  ///< as the inputs; of sum(output * a random tensor)
  double worst_gradient() const;
};

/// `ours` gets the inputs in `dtype`, `plain` the same numbers in float64. Undefined inputs stay
/// undefined.
BlockErrors compare_blocks(const BlockFunction& ours, const BlockFunction& plain,
                           const std::vector<at::Tensor>& inputs,
                           at::ScalarType dtype = at::kFloat);

/// Plain causal softmax attention by whole matrices: q [B, H, L, A], k [B, G, L, A], v [B, G, L, U]
/// -> [B L, H U]; query head h looks at key head h / (H / G). sinks may be undefined.
at::Tensor plain_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           double scale, int64_t window, const at::Tensor& sinks);

/// x [B, L, H, A] turned by complex multiplication, channels [begin, begin + width), base theta ->
/// [B, H, L, A].
at::Tensor plain_rope(const at::Tensor& x, double theta, int64_t begin, int64_t width,
                      bool interleaved);

/// gain x / sqrt(mean x^2 + eps)
at::Tensor plain_rms(const at::Tensor& x, const at::Tensor& gain, double eps);

}  // namespace moue::test
