// Kernels as differentiable functions of tensors.
#include "model/ops.h"

#ifdef MOUE_WITH_CUDA
#include <c10/cuda/CUDAStream.h>
#endif

#include "kernels/distillation.h"
#include "model/product.h"
#include "model/torch.h"

namespace moue {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

constexpr int64_t kLogitElements = 1 << 21;  // of one chunk

at::Tensor chunk_logits(const at::Tensor& x, const Head& head) {
  at::Tensor out = at::empty({x.size(0), head.weight.size(0)}, x.options().requires_grad(false));
  if (head.bias.defined()) out.copy_(head.bias.expand_as(out));
  multiply(out, x, head.weight.t(), head.bias.defined());
  return head.divisor == 1 ? out : out.div_(head.divisor);
}

// What the two directions share and autograd does not see.
struct HeadCall : torch::CustomClassHolder {
  Head head;
  at::Tensor dhidden, dweight, dbias;

  // dlogits may be changed.
  void add_gradients(const at::Tensor& x, at::Tensor dlogits, at::Tensor dx) const {
    if (head.divisor != 1) dlogits.div_(head.divisor);
    multiply(dx, dlogits, head.weight);
    if (dbias.defined()) at::Tensor(dbias).add_(dlogits.sum(0, false, at::kFloat));
    add_product(dweight, dlogits, x);
  }
};

// Losses of a chunk of rows, and where `args.scale` is not 0 their gradient in the logits' place.
void chunk_loss(const kernels::CrossEntropy& args, int64_t begin, kernels::Where where,
                Teaching* teaching) {
  if (teaching == nullptr) return kernels::cross_entropy(args, where);
  const at::Tensor teacher =
      chunk_logits(teaching->hidden.narrow(0, begin, args.rows), teaching->head);
  kernels::distillation(
      {args, teacher.data_ptr(), teaching->divergence.data_ptr<float>() + begin,
       static_cast<float>(teaching->share), static_cast<float>(teaching->temperature)},
      where);
}

at::Tensor zeros_for(const at::Tensor& grad) {
  return grad.defined() ? at::zeros_like(grad) : at::Tensor();
}

// The gradient is made on the way forward, while a chunk's logits are at hand. (Liger Kernel, arXiv
// 2410.10989)
struct LinearCrossEntropy : Function<LinearCrossEntropy> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& hidden,
                            const c10::intrusive_ptr<HeadCall>& call, const at::Tensor& target,
                            double scale, bool train, at::Tensor* token_loss, Teaching* teaching) {
    const int64_t T = hidden.size(0), V = call->head.weight.size(0);
    const int64_t chunk = std::max<int64_t>(16, kLogitElements / V);
    at::Tensor loss = at::empty({T}, floats(hidden));
    if (teaching) teaching->divergence = at::empty_like(loss);
    if (train) {
      call->dhidden = at::zeros_like(hidden);  // stays zero at scale 0
      call->dweight = zeros_for(call->head.weight_grad);
      call->dbias = zeros_for(call->head.bias_grad);
    }
    for (int64_t begin = 0; begin < T; begin += chunk) {
      const int64_t rows = std::min(chunk, T - begin);
      const at::Tensor x = hidden.narrow(0, begin, rows);
      const at::Tensor logits = chunk_logits(x, call->head);
      chunk_loss(
          {element_of(logits), logits.data_ptr(), target.data_ptr<int64_t>() + begin,
           loss.data_ptr<float>() + begin, train ? static_cast<float>(scale) : 0.0f, rows, V},
          begin, where_of(logits), teaching);
      if (train && scale != 0) call->add_gradients(x, logits, call->dhidden.narrow(0, begin, rows));
    }
    *token_loss = loss;
    ctx->saved_data["call"] = c10::IValue::make_capsule(call);
    at::Tensor sum = loss.sum(at::kDouble);
    if (teaching) sum = at::lerp(sum, teaching->divergence.sum(at::kDouble), teaching->share);
    return (sum * scale).to(at::kFloat);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto call =
        c10::static_intrusive_pointer_cast<HeadCall>(ctx->saved_data["call"].toCapsule());
    if (call->dweight.defined()) call->head.weight_grad.add_(call->dweight * grads[0]);
    if (call->dbias.defined()) call->head.bias_grad.add_(call->dbias * grads[0]);
    return {call->dhidden * grads[0].to(call->dhidden.scalar_type()), {}, {}, {}, {}, {}, {}};
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

at::TensorOptions floats(const at::Tensor& x) {
  return x.options().dtype(at::kFloat).requires_grad(false);
}

std::optional<at::Tensor> maybe(const at::Tensor& x) {
  return x.defined() ? std::optional(x) : std::nullopt;
}

at::Tensor logits_of(const at::Tensor& hidden, const Head& head) {
  const at::Tensor logits = project(hidden, head.weight, head.bias);
  return head.divisor == 1 ? logits : logits / head.divisor;
}

at::Tensor linear_cross_entropy(const at::Tensor& hidden, const Head& head,
                                const at::Tensor& target, double scale, at::Tensor& token_loss,
                                Teaching* teaching) {
  const bool own = head.weight_grad.defined() || head.bias_grad.defined();
  const bool train = at::GradMode::is_enabled() && (hidden.requires_grad() || own);
  const at::Tensor in =
      train && !hidden.requires_grad() ? hidden.detach().requires_grad_() : hidden;
  auto call = c10::make_intrusive<HeadCall>();
  call->head = head;
  call->head.weight = head.weight.detach();
  if (head.bias.defined()) call->head.bias = head.bias.detach();
  return LinearCrossEntropy::apply(in, call, target, scale, train, &token_loss, teaching);
}

}  // namespace moue
