// Multi-head latent attention, expanded: queries and keys of N plain and P rotary channels.
#include "model/attention_latent.h"

#include "model/norm.h"
#include "model/product.h"
#include "model/softmax_attention.h"
#include "model/torch.h"

namespace moue {
namespace {

// [T, H (N + P)]
at::Tensor queries(const at::Tensor& x_TD, double eps, const LatentWeights& weights) {
  if (!weights.query_down.defined()) return project(x_TD, weights.query_up);
  const at::Tensor narrow = project(x_TD, weights.query_down, weights.query_down_bias);
  return project(rms_norm(narrow, weights.query_norm, eps), weights.query_up);
}

}  // namespace

at::Tensor attention_latent(const at::Tensor& x_TD, int64_t batch, const AttentionSpec& spec,
                            int64_t layer, double eps, const Positions& positions,
                            const LatentWeights& weights) {
  const LatentSpec& latent = spec.latent;
  const int64_t length = x_TD.size(0) / batch, H = spec.heads;
  const int64_t N = latent.plain_width, P = latent.rope_width, U = latent.value_width;
  const at::Tensor q =
      rope(queries(x_TD, eps, weights).view({batch, length, H, N + P}), positions, N);

  const auto narrow =
      project(x_TD, weights.down, weights.down_bias).split_with_sizes({latent.rank, P}, -1);
  const at::Tensor wide = project(rms_norm(narrow[0], weights.norm, eps), weights.up);
  const auto heads =
      wide.view({batch, length, H, N + U}).transpose(1, 2).split_with_sizes({N, U}, -1);
  const at::Tensor shared = rope(narrow[1].view({batch, length, 1, P}), positions);
  const at::Tensor k = at::cat({heads[0], shared.expand({-1, H, -1, -1})}, -1);

  const int64_t window = spec.window.empty() ? 0 : spec.window[layer];
  const at::Tensor out = softmax_attention(q, k, heads[1], spec.scale, window, {});
  return project(out, weights.output, weights.output_bias);
}

}  // namespace moue
