// Activation recomputation (Chen et al. 2016, arXiv 1604.06174) with LibTorch's engine called from
// within backward.
#include "model/recompute.h"

#include "model/ops.h"
#include "model/torch.h"

#include <torch/csrc/autograd/autograd.h>

namespace moue {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

struct BlockCall : torch::CustomClassHolder {
  explicit BlockCall(BlockRun r) : run(std::move(r)) {}
  BlockRun run;
  bool has_state = false, has_z = false;

  variable_list listed(const Carried& out) {
    has_state = out.state.defined();
    has_z = out.z_loss.defined();
    variable_list list = {out.hidden};
    if (has_state) list.push_back(out.state);
    if (has_z) list.push_back(out.z_loss);
    return list;
  }
};

struct Recompute : Function<Recompute> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& hidden,
                               const std::optional<at::Tensor>& state,
                               const c10::intrusive_ptr<BlockCall>& call) {
    ctx->save_for_backward({hidden, state.value_or(at::Tensor())});
    ctx->saved_data["call"] = c10::IValue::make_capsule(call);
    return call->listed(call->run({hidden, state.value_or(at::Tensor()), {}}, false));
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto call =
        c10::static_intrusive_pointer_cast<BlockCall>(ctx->saved_data["call"].toCapsule());
    const auto saved = ctx->get_saved_variables();
    const auto leaf = [](const at::Tensor& x) {
      return x.defined() ? x.detach().requires_grad_() : x;
    };
    const Carried in{leaf(saved[0]), leaf(saved[1]), {}};
    variable_list outputs, wanted;
    {
      const at::AutoGradMode on(true);
      const variable_list all = call->listed(call->run(in, true));
      for (size_t i = 0; i < all.size(); ++i) {
        if (!grads[i].defined() || !all[i].requires_grad()) continue;
        outputs.push_back(all[i]);
        wanted.push_back(grads[i]);
      }
    }
    torch::autograd::backward(outputs, wanted);
    return {in.hidden.grad(), in.state.defined() ? in.state.grad() : at::Tensor(), {}};
  }
};

}  // namespace

Carried recomputed(const Carried& in, BlockRun run) {
  auto call = c10::make_intrusive<BlockCall>(std::move(run));
  const at::Tensor hidden =
      in.hidden.requires_grad() ? in.hidden : in.hidden.detach().requires_grad_();
  const variable_list out = Recompute::apply(hidden, maybe(in.state), call);
  Carried result{out[0], {}, {}};
  if (call->has_state) result.state = out[1];
  if (call->has_z) result.z_loss = out.back();
  return result;
}

}  // namespace moue
