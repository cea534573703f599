// Matrix products: our own where they are faster than the library's, shared out by rows.
#include "model/product.h"

#include <ATen/Parallel.h>

#include "kernels/product.h"
#include "model/ops.h"
#include "model/torch.h"

namespace moue {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

constexpr int64_t kGrain = 1 << 20;  // multiplications that are worth a thread

bool is_ours(const at::Tensor& x) {
  return x.is_cpu() && x.scalar_type() == at::kFloat && x.dim() == 2 &&
         (x.stride(1) == 1 || x.stride(0) == 1);
}

kernels::Operand operand(const at::Tensor& x) {
  const bool in_rows = x.stride(1) == 1;
  return {x.data_ptr<float>(), x.stride(in_rows ? 0 : 1), !in_rows};
}

void multiply_rows(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b, bool add) {
  const kernels::Product whole{operand(a),    operand(b), out.data_ptr<float>(),
                               out.stride(0), add,        a.size(0),
                               b.size(1),     a.size(1)};
  const int64_t tiles = (whole.m + kernels::kProductRows - 1) / kernels::kProductRows;
  const int64_t of_tile = std::max<int64_t>(1, kernels::kProductRows * whole.n * whole.k);
  at::parallel_for(0, tiles, (kGrain + of_tile - 1) / of_tile, [&](int64_t begin, int64_t end) {
    kernels::Product part = whole;
    const int64_t row = begin * kernels::kProductRows;
    part.a.data += row * (whole.a.transposed ? 1 : whole.a.stride);
    part.out += row * whole.out_stride;
    part.m = std::min(end * kernels::kProductRows, whole.m) - row;
    kernels::product(part);
  });
}

struct Linear : Function<Linear> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias) {
    ctx->save_for_backward({x, weight});
    ctx->saved_data["bias"] = bias.has_value();
    at::Tensor out = at::empty({x.size(0), weight.size(0)}, x.options().requires_grad(false));
    if (bias) out.copy_(bias->expand_as(out));
    multiply(out, x, weight.t(), bias.has_value());
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], dout = grads[0].contiguous();
    variable_list result(3);
    if (ctx->needs_input_grad(0)) {
      result[0] = at::empty(x.sizes(), x.options().requires_grad(false));
      multiply(result[0], dout, weight);
    }
    if (ctx->needs_input_grad(1)) {
      result[1] = at::empty(weight.sizes(), weight.options().requires_grad(false));
      multiply(result[1], dout.t(), x);
    }
    if (ctx->saved_data["bias"].toBool() && ctx->needs_input_grad(2)) result[2] = dout.sum(0);
    return result;
  }
};

}  // namespace

void multiply(at::Tensor out, const at::Tensor& a, const at::Tensor& b, bool add) {
  if (kernels::has_product() && is_ours(out) && out.stride(1) == 1 && is_ours(a) && is_ours(b))
    return multiply_rows(out, a, b, add);
  if (add)
    out.addmm_(a, b);
  else
    at::mm_out(out, a, b);
}

void add_product(at::Tensor grad, const at::Tensor& left, const at::Tensor& right) {
  if (!grad.defined()) return;
  if (left.scalar_type() == at::kFloat)
    multiply(grad, left.t(), right, true);
  else
    grad.add_(at::mm(left.t(), right));
}

at::Tensor project(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const bool plain = kernels::has_product() && is_ours(x) && is_ours(weight);
  return plain ? Linear::apply(x, weight, maybe(bias)) : at::linear(x, weight, maybe(bias));
}

}  // namespace moue
