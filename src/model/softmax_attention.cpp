// Causal softmax attention of heads that are ready, on LibTorch's fused kernels.
#include "model/softmax_attention.h"

#include "model/torch.h"

namespace moue {
namespace {

constexpr int64_t kPad = 8;  // channels: the fused kernels want whole packs

// True where a query may look: its own position and the window - 1 before it.
at::Tensor window_mask(int64_t length, int64_t window, const at::Tensor& like) {
  const at::Tensor at = at::arange(length, like.options().dtype(at::kLong).requires_grad(false));
  const at::Tensor distance = at.unsqueeze(1) - at.unsqueeze(0);
  return distance.ge(0).logical_and(distance.lt(window));
}

struct Heads {
  at::Tensor q, k, v;
};

// A sink is a token before the first whose value is 0. Its key is 0 but for a channel of its own,
// in which all queries of a head hold the head's logit: so the fused kernels need not know of it,
// and its gradient comes with the queries'. The first query answers for nobody.
Heads with_sinks(const Heads& heads, const at::Tensor& sinks, double scale) {
  const int64_t batch = heads.q.size(0), length = heads.q.size(2);
  const auto zeros = [&](int64_t num_heads, int64_t positions, int64_t channels) {
    return at::zeros({batch, num_heads, positions, channels},
                     heads.q.options().requires_grad(false));
  };
  const auto behind_a_token = [&](const at::Tensor& x) {
    const at::Tensor wide = at::cat({x, zeros(x.size(1), length, kPad)}, 3);
    return at::cat({zeros(x.size(1), 1, x.size(3) + kPad), wide}, 2);
  };
  const at::Tensor logit = (sinks / scale).to(heads.q.scalar_type()).view({1, -1, 1, 1});
  const at::Tensor wide = at::cat(
      {heads.q, logit.expand({batch, -1, length, 1}), zeros(heads.q.size(1), length, kPad - 1)}, 3);
  at::Tensor sink_key = zeros(heads.k.size(1), length + 1, heads.k.size(3) + kPad);
  sink_key.select(2, 0).select(2, heads.k.size(3)).fill_(1);
  return {at::cat({zeros(heads.q.size(1), 1, wide.size(3)), wide}, 2),
          behind_a_token(heads.k) + sink_key, behind_a_token(heads.v)};
}

std::optional<at::Tensor> mask_of(const at::Tensor& q, int64_t window, bool sinks) {
  const int64_t length = q.size(2);
  if (window <= 0 || window >= length) return std::nullopt;
  at::Tensor mask = window_mask(length, window, q);
  if (sinks) mask.select(1, 0).fill_(true);
  return mask;
}

}  // namespace

at::Tensor softmax_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             double scale, int64_t window, const at::Tensor& sinks) {
  const int64_t batch = q.size(0), length = q.size(2), width = v.size(3);
  Heads heads{q, k, v};
  // The fused kernels want one width.
  if (width < q.size(3)) heads.v = at::constant_pad_nd(v, {0, q.size(3) - width});
  if (sinks.defined()) heads = with_sinks(heads, sinks, scale);
  const std::optional<at::Tensor> mask = mask_of(heads.q, window, sinks.defined());
  at::Tensor out = at::scaled_dot_product_attention(
      heads.q, heads.k, heads.v, mask, 0.0, !mask.has_value(), scale, q.size(1) != k.size(1));
  if (sinks.defined()) out = out.narrow(2, 1, length);
  return out.narrow(3, 0, width).transpose(1, 2).reshape({batch * length, q.size(1) * width});
}

}  // namespace moue
