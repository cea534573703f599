// What stands between an FFN's two products: SwiGLU or the clamped GLU.
#include "model/activation.h"

#include "kernels/glu.h"
#include "model/ops.h"
#include "model/torch.h"

namespace moue {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

kernels::GluRule rule_of(const ActivationSpec& spec) {
  if (spec.kind == Activation::Silu) return {};
  return {static_cast<float>(spec.alpha), static_cast<float>(spec.limit), 1.0f};
}

float* pointer(const at::Tensor& x) { return x.defined() ? x.data_ptr<float>() : nullptr; }

struct Activate : Function<Activate> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& h_in,
                            const ActivationSpec& spec) {
    const at::Tensor h = h_in.contiguous();
    ctx->save_for_backward({h});
    ctx->saved_data["kind"] = static_cast<int64_t>(spec.kind);
    ctx->saved_data["alpha"] = spec.alpha;
    ctx->saved_data["limit"] = spec.limit;
    return activation_forward(h, {}, spec);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const ActivationSpec spec{static_cast<Activation>(ctx->saved_data["kind"].toInt()),
                              ctx->saved_data["alpha"].toDouble(),
                              ctx->saved_data["limit"].toDouble()};
    const at::Tensor h = ctx->get_saved_variables()[0];
    return {activation_backward(h, {}, grads[0].contiguous(), spec).dh, {}};
  }
};

}  // namespace

ActivationSpec activation_of(const ModelSpec& spec) {
  return {spec.activation, spec.activation_alpha, spec.activation_limit};
}

at::Tensor activate(const at::Tensor& h, const ActivationSpec& spec) {
  return Activate::apply(h, spec);
}

at::Tensor activation_forward(const at::Tensor& h, const at::Tensor& weight,
                              const ActivationSpec& spec) {
  const int64_t rows = h.size(0), width = h.size(1) / 2;
  at::Tensor out = at::empty({rows, width}, h.options().requires_grad(false));
  kernels::glu_forward(
      {element_of(h), rule_of(spec), h.data_ptr(), pointer(weight), out.data_ptr(), rows, width},
      where_of(h));
  return out;
}

ActivationGradients activation_backward(const at::Tensor& h, const at::Tensor& weight,
                                        const at::Tensor& dout, const ActivationSpec& spec) {
  const int64_t rows = h.size(0), width = h.size(1) / 2;
  ActivationGradients result{at::empty_like(h), at::empty_like(dout),
                             weight.defined() ? at::empty_like(weight) : at::Tensor()};
  kernels::glu_backward(
      {element_of(h), rule_of(spec), h.data_ptr(), pointer(weight), dout.data_ptr(),
       result.dh.data_ptr(), result.out.data_ptr(), pointer(result.dweight), rows, width},
      where_of(h));
  return result;
}

}  // namespace moue
