// Norms: RMSNorm on our kernel, LayerNorm on LibTorch's.
#include "model/norm.h"

#include "kernels/rms_norm.h"
#include "model/ops.h"
#include "model/torch.h"

namespace moue {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

struct RmsNorm : Function<RmsNorm> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x_in,
                            const std::optional<at::Tensor>& gain_in, double eps) {
    const at::Tensor gain = gain_in.value_or(at::Tensor());
    const at::Tensor x = x_in.contiguous();
    at::Tensor out = at::empty_like(x);
    const int64_t width = x.size(-1), rows = x.numel() / width;
    at::Tensor rstd = at::empty({rows}, floats(x));
    kernels::rms_norm_forward(
        {element_of(x), x.data_ptr(), gain.defined() ? gain.data_ptr() : nullptr, out.data_ptr(),
         rstd.data_ptr<float>(), rows, width, static_cast<float>(eps)},
        where_of(x));
    ctx->save_for_backward({x, gain, rstd});
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &gain = saved[1], &rstd = saved[2];
    const at::Tensor dout = grads[0].contiguous();
    const int64_t width = x.size(-1), rows = x.numel() / width;
    at::Tensor dx = at::empty_like(x), dgain, partial;
    if (gain.defined()) {
      dgain = at::empty({width}, floats(x));
      partial = at::empty({kernels::rms_norm_partials(rows) * width}, floats(x));
    }
    kernels::rms_norm_backward(
        {element_of(x), x.data_ptr(), gain.defined() ? gain.data_ptr() : nullptr, dout.data_ptr(),
         rstd.data_ptr<float>(), dx.data_ptr(), gain.defined() ? dgain.data_ptr<float>() : nullptr,
         gain.defined() ? partial.data_ptr<float>() : nullptr, rows, width},
        where_of(x));
    return {dx, gain.defined() ? dgain.to(gain.scalar_type()) : at::Tensor(), {}};
  }
};

bool rounds_once(const NormSpec& spec) {
  return spec.kind == NormKind::Layer || spec.gain_in_float32;
}

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& gain, double eps) {
  return RmsNorm::apply(x, maybe(gain), eps);
}

at::Tensor norm(const at::Tensor& x, const NormSpec& spec, const NormWeights& weights) {
  if (spec.kind == NormKind::Layer)
    return at::layer_norm(x, {x.size(-1)}, weights.gain, weights.bias, spec.eps);
  if (!spec.gain_in_float32) return rms_norm(x, weights.gain, spec.eps);
  return rms_norm(x.to(at::kFloat), weights.gain.to(at::kFloat), spec.eps).to(x.scalar_type());
}

at::Tensor normalise(const at::Tensor& x, const NormSpec& spec) {
  const at::Tensor wide = rounds_once(spec) ? x.to(at::kFloat) : x;
  if (spec.kind == NormKind::Layer) return at::layer_norm(wide, {x.size(-1)}, {}, {}, spec.eps);
  return rms_norm(wide, {}, spec.eps);
}

at::Tensor apply_gain(const at::Tensor& xhat, const NormWeights& weights, at::ScalarType dtype) {
  at::Tensor y = xhat * weights.gain;
  if (weights.bias.defined()) y = y + weights.bias;
  return y.to(dtype);
}

}  // namespace moue
