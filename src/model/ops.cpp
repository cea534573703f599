// Kernels as differentiable functions of tensors.
#include "model/ops.h"

#ifdef MOUE_WITH_CUDA
#include <c10/cuda/CUDAStream.h>
#endif

#include "kernels/cross_entropy.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/swiglu.h"
#include "model/torch.h"

namespace moue {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

at::TensorOptions floats(const at::Tensor& x) {
  return x.options().dtype(at::kFloat).requires_grad(false);
}

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

// x is [B, length, heads, A] with unit stride inside a token's heads; tokens may lie further apart.
kernels::Rope rope_args(const at::Tensor& x, const at::Tensor& y, const at::Tensor& cosine,
                        const at::Tensor& sine, bool inverse) {
  return {element_of(x),
          x.data_ptr(),
          x.stride(1),
          y.data_ptr(),
          cosine.data_ptr<float>(),
          sine.data_ptr<float>(),
          x.size(0),
          x.size(1),
          x.size(2),
          x.size(3),
          inverse};
}

bool fits_rope(const at::Tensor& x) {
  return x.stride(3) == 1 && x.stride(2) == x.size(3) && x.stride(0) == x.size(1) * x.stride(1);
}

struct RopeFunction : Function<RopeFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x_in, const at::Tensor& cosine,
                            const at::Tensor& sine) {
    const at::Tensor x = fits_rope(x_in) ? x_in : x_in.contiguous();
    at::Tensor y =
        at::empty({x.size(0), x.size(2), x.size(1), x.size(3)}, x.options().requires_grad(false));
    kernels::rope(rope_args(x, y, cosine, sine, false), where_of(x));
    ctx->save_for_backward({cosine, sine});
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor dy = grads[0].contiguous();
    at::Tensor dx = at::empty({dy.size(0), dy.size(2), dy.size(1), dy.size(3)}, dy.options());
    kernels::rope(rope_args(dx, dy, saved[0], saved[1], true), where_of(dy));
    return {dx, {}, {}};
  }
};

struct Swiglu : Function<Swiglu> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& h_in) {
    const at::Tensor h = h_in.contiguous();
    const int64_t rows = h.size(0), width = h.size(1) / 2;
    at::Tensor out = at::empty({rows, width}, h.options().requires_grad(false));
    kernels::swiglu_forward({element_of(h), h.data_ptr(), nullptr, out.data_ptr(), rows, width},
                            where_of(h));
    ctx->save_for_backward({h});
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const at::Tensor h = ctx->get_saved_variables()[0], dout = grads[0].contiguous();
    at::Tensor dh = at::empty_like(h), out = at::empty_like(dout);
    kernels::swiglu_backward({element_of(h), h.data_ptr(), nullptr, dout.data_ptr(), dh.data_ptr(),
                              out.data_ptr(), nullptr, h.size(0), h.size(1) / 2},
                             where_of(h));
    return {dh};
  }
};

constexpr int64_t kLogitElements = 1 << 21;  // of one chunk

// The gradient is made on the way forward, while a chunk's logits are at hand. (Liger Kernel, arXiv
// 2410.10989)
struct LinearCrossEntropy : Function<LinearCrossEntropy> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& hidden, const at::Tensor& head,
                            const std::optional<at::Tensor>& grad_in, const at::Tensor& target,
                            double scale, bool train, at::Tensor* token_loss) {
    const int64_t T = hidden.size(0), V = head.size(0);
    const at::Tensor head_grad = grad_in.value_or(at::Tensor());
    const int64_t chunk = std::max<int64_t>(16, kLogitElements / V);
    at::Tensor loss = at::empty({T}, floats(hidden));
    at::Tensor dhidden = train ? at::zeros_like(hidden) : at::Tensor();  // stays zero at scale 0
    at::Tensor dhead = train && head_grad.defined() ? at::zeros_like(head_grad) : at::Tensor();
    for (int64_t begin = 0; begin < T; begin += chunk) {
      const int64_t rows = std::min(chunk, T - begin);
      const at::Tensor x = hidden.narrow(0, begin, rows);
      at::Tensor logits = at::mm(x, head.t());
      kernels::cross_entropy(
          {element_of(logits), logits.data_ptr(), target.data_ptr<int64_t>() + begin,
           loss.data_ptr<float>() + begin, train ? static_cast<float>(scale) : 0.0f, rows, V},
          where_of(logits));
      if (!train || scale == 0) continue;
      at::Tensor dx = dhidden.narrow(0, begin, rows);
      at::mm_out(dx, logits, head);
      if (!dhead.defined()) continue;
      if (logits.scalar_type() == at::kFloat)
        dhead.addmm_(logits.t(), x);
      else
        dhead.add_(at::mm(logits.t(), x));
    }
    *token_loss = loss;
    ctx->save_for_backward({dhidden, dhead});
    ctx->saved_data["head_grad"] = head_grad;
    return (loss.sum(at::kDouble) * scale).to(at::kFloat);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    if (saved[1].defined()) ctx->saved_data["head_grad"].toTensor().add_(saved[1] * grads[0]);
    return {saved[0] * grads[0].to(saved[0].scalar_type()), {}, {}, {}, {}, {}, {}};
  }
};

}  // namespace

kernels::Element element_of(const at::Tensor& x) {
  TORCH_CHECK(x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16,
              "moue kernels take float32 and bfloat16");
  return x.scalar_type() == at::kFloat ? kernels::Element::Float32 : kernels::Element::BFloat16;
}

kernels::Where where_of(const at::Tensor& x) {
#ifdef MOUE_WITH_CUDA
  if (x.is_cuda()) return {true, c10::cuda::getCurrentCUDAStream(x.get_device()).stream()};
#endif
  return {x.is_cuda(), nullptr};
}

std::optional<at::Tensor> maybe(const at::Tensor& x) {
  return x.defined() ? std::optional(x) : std::nullopt;
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& gain, double eps) {
  return RmsNorm::apply(x, maybe(gain), eps);
}

at::Tensor rope(const at::Tensor& x, const at::Tensor& cosine, const at::Tensor& sine) {
  return RopeFunction::apply(x, cosine, sine);
}

at::Tensor swiglu(const at::Tensor& h) { return Swiglu::apply(h); }

at::Tensor linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& head,
                                const at::Tensor& head_grad, const at::Tensor& target, double scale,
                                at::Tensor& token_loss) {
  const bool train = at::GradMode::is_enabled() && hidden.requires_grad();
  return LinearCrossEntropy::apply(hidden, head.detach(), maybe(head_grad), target, scale, train,
                                   &token_loss);
}

}  // namespace moue
