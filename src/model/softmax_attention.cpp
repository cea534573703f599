// Causal softmax attention of heads that are ready: our own in float32 on the CPU, else LibTorch's
// fused kernels.
#include "model/softmax_attention.h"

#include "kernels/attention.h"
#include "kernels/product.h"
#include "model/ops.h"
#include "model/torch.h"

namespace moue {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

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

// x [B, H, length, width], whose rows lie together.
template <class T>
kernels::HeadRows<T> rows(const at::Tensor& x) {
  return {x.data_ptr<float>(), x.stride(0), x.stride(1), x.stride(2)};
}

at::Tensor in_rows(const at::Tensor& x) {
  return x.stride(3) == 1 || x.size(3) == 1 ? x : x.contiguous();
}

// [B, H, length, width] that lies as [B, length, H, width].
at::Tensor token_major(const at::Tensor& q, int64_t num_heads, int64_t width) {
  const auto options = q.options().requires_grad(false);
  return at::empty({q.size(0), q.size(2), num_heads, width}, options).transpose(1, 2);
}

kernels::AttentionShape shape_of(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                 double scale, int64_t window) {
  return {
      q.size(0), q.size(1), k.size(1), q.size(2), q.size(3), v.size(3), static_cast<float>(scale),
      window};
}

struct OwnAttention : Function<OwnAttention> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& q_in, const at::Tensor& k_in,
                            const at::Tensor& v_in, const std::optional<at::Tensor>& sinks,
                            double scale, int64_t window) {
    const at::Tensor q = in_rows(q_in), k = in_rows(k_in), v = in_rows(v_in);
    const at::Tensor out = token_major(q, q.size(1), v.size(3));
    const at::Tensor norm = at::empty({q.size(0), q.size(1), q.size(2)}, floats(q));
    const at::Tensor sink = sinks ? sinks->to(at::kFloat).contiguous() : at::Tensor();
    kernels::attention_forward({shape_of(q, k, v, scale, window), rows<const float>(q),
                                rows<const float>(k), rows<const float>(v),
                                sinks ? sink.data_ptr<float>() : nullptr, rows<float>(out),
                                norm.data_ptr<float>()});
    ctx->save_for_backward({q, k, v, out, norm, sink});
    ctx->saved_data["scale"] = scale;
    ctx->saved_data["window"] = window;
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &q = saved[0], &k = saved[1], &v = saved[2], &out = saved[3], &sink = saved[5];
    const at::Tensor dout = in_rows(grads[0]);
    const at::Tensor dq = token_major(q, q.size(1), q.size(3)),
                     dk = token_major(q, k.size(1), k.size(3)),
                     dv = token_major(q, v.size(1), v.size(3));
    const at::Tensor dsinks =
        sink.defined() ? at::empty({q.size(0), q.size(1)}, floats(q)) : at::Tensor();
    kernels::attention_backward(
        {shape_of(q, k, v, ctx->saved_data["scale"].toDouble(), ctx->saved_data["window"].toInt()),
         rows<const float>(q), rows<const float>(k), rows<const float>(v),
         sink.defined() ? sink.data_ptr<float>() : nullptr, rows<const float>(out),
         rows<const float>(dout), saved[4].data_ptr<float>(), rows<float>(dq), rows<float>(dk),
         rows<float>(dv), sink.defined() ? dsinks.data_ptr<float>() : nullptr});
    return {dq, dk, dv, sink.defined() ? dsinks.sum(0) : at::Tensor(), {}, {}};
  }
};

bool is_ours(const at::Tensor& q) {
  return q.is_cpu() && q.scalar_type() == at::kFloat && kernels::has_product();
}

}  // namespace

at::Tensor softmax_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             double scale, int64_t window, const at::Tensor& sinks) {
  const int64_t batch = q.size(0), length = q.size(2), width = v.size(3);
  if (is_ours(q)) {
    const at::Tensor out = OwnAttention::apply(q, k, v, maybe(sinks), scale, window);
    return out.transpose(1, 2).reshape({batch * length, q.size(1) * width});
  }
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
