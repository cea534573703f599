// Grouped-query softmax attention with rotary positions, optional QK norm and sliding window.
#include "model/attention.h"

#include "model/ops.h"
#include "model/torch.h"

namespace moue {
namespace {

// True where a query may look: its own position and the window - 1 before it.
at::Tensor window_mask(int64_t length, int64_t window, const at::Tensor& like) {
  const at::Tensor at = at::arange(length, like.options().dtype(at::kLong).requires_grad(false));
  const at::Tensor distance = at.unsqueeze(1) - at.unsqueeze(0);
  return distance.ge(0).logical_and(distance.lt(window));
}

}  // namespace

Positions make_positions(const RopeSpec& rope, int64_t length, const at::TensorOptions& device) {
  const auto floats = at::TensorOptions().dtype(at::kFloat);
  // In float32 and this order, as the original models made their tables.
  const at::Tensor exponent =
      at::arange(0, rope.width, 2, floats) / static_cast<double>(rope.width);
  const at::Tensor frequency = 1.0 / at::pow(at::Scalar(rope.theta), exponent);
  const at::Tensor angle = at::arange(length, floats).unsqueeze(1) * frequency.unsqueeze(0);
  return {angle.cos().to(device.device()), angle.sin().to(device.device())};
}

at::Tensor attention(const at::Tensor& x_TD, int64_t batch, int64_t layer, const ModelSpec& spec,
                     const Positions& positions, Weights& weights) {
  const AttentionSpec& a = spec.attention;
  const int64_t length = x_TD.size(0) / batch, A = a.head_width;
  const at::Tensor qkv =
      at::linear(x_TD, weights.get(Weight::Qkv, layer), weights.get(Weight::QkvBias, layer));
  const auto parts = qkv.split_with_sizes({a.heads * A, a.kv_heads * A, a.kv_heads * A}, -1);
  at::Tensor q = parts[0].view({batch, length, a.heads, A}),
             k = parts[1].view({batch, length, a.kv_heads, A});
  if (a.qk_norm == QkNorm::PerHead) {
    q = rms_norm(q, weights.get(Weight::QueryNorm, layer), spec.norm.eps);
    k = rms_norm(k, weights.get(Weight::KeyNorm, layer), spec.norm.eps);
  }
  q = rope(q, positions.cosine, positions.sine);
  k = rope(k, positions.cosine, positions.sine);
  const at::Tensor v = parts[2].view({batch, length, a.kv_heads, A}).transpose(1, 2);
  const int64_t window = a.window.empty() ? 0 : a.window[layer];
  const bool windowed = window > 0 && window < length;
  const std::optional<at::Tensor> mask =
      windowed ? std::optional(window_mask(length, window, q)) : std::nullopt;
  const at::Tensor out = at::scaled_dot_product_attention(q, k, v, mask, 0.0, !windowed, a.scale,
                                                          a.heads != a.kv_heads);
  const at::Tensor flat = out.transpose(1, 2).reshape({batch * length, a.heads * A});
  return at::linear(flat, weights.get(Weight::AttentionOutput, layer),
                    weights.get(Weight::AttentionOutputBias, layer));
}

}  // namespace moue
