// Grouped-query softmax attention: QK norm, limits, rotation, window and sinks where the family has
// them.
#include "model/attention_grouped.h"

#include "model/norm.h"
#include "model/product.h"
#include "model/softmax_attention.h"
#include "model/torch.h"

namespace moue {

at::Tensor attention_grouped(const at::Tensor& x_TD, int64_t batch, const AttentionSpec& spec,
                             int64_t layer, double eps, const Positions& positions,
                             const GroupedWeights& weights) {
  const int64_t length = x_TD.size(0) / batch, A = spec.head_width;
  const at::Tensor qkv = project(x_TD, weights.qkv, weights.qkv_bias);
  auto parts = qkv.split_with_sizes({spec.heads * A, spec.kv_heads * A, spec.kv_heads * A}, -1);
  if (spec.qk_norm == QkNorm::Whole) {
    parts[0] = rms_norm(parts[0], weights.query_norm, eps);
    parts[1] = rms_norm(parts[1], weights.key_norm, eps);
  }
  if (spec.clip > 0) {
    for (at::Tensor& part : parts) part = part.clamp(-spec.clip, spec.clip);
  }
  at::Tensor q = parts[0].view({batch, length, spec.heads, A}),
             k = parts[1].view({batch, length, spec.kv_heads, A});
  if (spec.qk_norm == QkNorm::PerHead) {
    q = rms_norm(q, weights.query_norm, eps);
    k = rms_norm(k, weights.key_norm, eps);
  }
  const at::Tensor v = parts[2].view({batch, length, spec.kv_heads, A}).transpose(1, 2);
  const int64_t window = spec.window.empty() ? 0 : spec.window[layer];
  const at::Tensor heads = softmax_attention(rope(q, positions), rope(k, positions), v, spec.scale,
                                             window, weights.sinks);
  return project(heads, weights.output, weights.output_bias);
}

}  // namespace moue
