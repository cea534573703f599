// The expert block on products per expert. Gate folded into the activation, gradients added in
// place (SonicMoE's set of saved tensors, arXiv 2512.14080).
#include "model/experts.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <functional>

#include "kernels/permute.h"
#include "model/ops.h"
#include "model/product.h"
#include "model/torch.h"

namespace moue {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

bool any_defined(const std::vector<at::Tensor>& tensors) {
  return std::any_of(tensors.begin(), tensors.end(),
                     [](const at::Tensor& x) { return x.defined(); });
}

// Kept alive for the backward pass.
struct Call : torch::CustomClassHolder {
  Call(Permutation p, ExpertTable t) : permutation(std::move(p)), table(std::move(t)) {}
  Permutation permutation;
  ExpertTable table;
  at::Tensor gain_pointers, bias_pointers;  ///< int64 [S], where the data is

  int64_t num_rows() const { return permutation.token_of_row.numel(); }
  at::TensorOptions row_options() const { return table.gain[0].options().requires_grad(false); }

  bool trains_norms() const { return any_defined(table.gain_grad) || any_defined(table.bias_grad); }
  bool trains_experts() const {
    for (size_t slot = 0; slot < table.gain.size(); ++slot) {
      const Expert expert = table.expert(static_cast<int64_t>(slot));
      if (expert.gate_up_grad.defined() || expert.gate_up_bias_grad.defined()) return true;
    }
    return false;
  }

  // Experts that have rows: slot, first row, rows.
  std::vector<std::array<int64_t, 3>> parts() const {
    std::vector<std::array<int64_t, 3>> parts;
    int64_t begin = 0;
    for (size_t slot = 0; slot < permutation.host_count.size(); ++slot) {
      const int64_t rows = permutation.host_count[slot];
      if (rows > 0) parts.push_back({static_cast<int64_t>(slot), begin, rows});
      begin += rows;
    }
    return parts;
  }

  // f(slot, first row, rows) of each, which must touch what is that expert's alone. On the CPU each
  // runs on one thread, the largest first: the products are too small to share, and their bits then
  // do not depend on how many threads there are.
  template <class F>
  void for_each_expert(F&& f) const {
    auto experts = parts();
    if (!table.is_resident || permutation.row_of.is_cuda()) {
      for (const auto& [slot, first, rows] : experts) f(slot, first, rows);
      return;
    }
    std::ranges::stable_sort(experts, std::greater<>(), [](const auto& part) { return part[2]; });
    std::atomic<size_t> next = 0;
    at::parallel_for(0, at::get_num_threads(), 1, [&](int64_t, int64_t) {
      const at::NoGradGuard no_grad;
      for (size_t i; (i = next++) < experts.size();) f(experts[i][0], experts[i][1], experts[i][2]);
    });
  }
};

at::Tensor pointers_to(const std::vector<at::Tensor>& table, const at::Device& device) {
  std::vector<int64_t> pointers;
  for (const at::Tensor& entry : table)
    pointers.push_back(reinterpret_cast<int64_t>(entry.data_ptr()));
  return at::tensor(pointers, at::kLong).to(device);
}

const void* const* table_of(const at::Tensor& pointers) {
  return pointers.numel() > 0 ? static_cast<const void* const*>(pointers.data_ptr()) : nullptr;
}

c10::intrusive_ptr<Call> make_call(const at::Tensor& xhat, const Permutation& permutation,
                                   const ExpertTable& table) {
  auto call = c10::make_intrusive<Call>(permutation, table);
  call->gain_pointers = pointers_to(table.gain, xhat.device());
  call->bias_pointers = pointers_to(table.bias, xhat.device());
  return call;
}

// Rows of x by choice; fed through the norms' second halves, or as they are.
at::Tensor gather(const at::Tensor& x, const Call& call, bool normed) {
  at::Tensor rows = at::empty({call.num_rows(), x.size(1)}, call.row_options());
  kernels::gather_rows(
      {element_of(rows), element_of(x), x.data_ptr(),
       normed ? table_of(call.gain_pointers) : nullptr,
       normed ? table_of(call.bias_pointers) : nullptr,
       call.permutation.token_of_row.data_ptr<int32_t>(),
       call.permutation.slot_of_row.data_ptr<int32_t>(), rows.data_ptr(), rows.size(0), x.size(1)},
      where_of(x));
  return rows;
}

at::Tensor combine(const at::Tensor& rows, const Call& call, bool gained, at::ScalarType dtype) {
  const at::Tensor& row_of = call.permutation.row_of;
  at::Tensor out = at::empty({row_of.size(0), rows.size(1)}, rows.options().dtype(dtype));
  kernels::combine_rows(
      {element_of(rows), element_of(out), rows.data_ptr(),
       gained ? table_of(call.gain_pointers) : nullptr, row_of.data_ptr<int32_t>(),
       call.permutation.slot_of_row.data_ptr<int32_t>(), out.data_ptr(), row_of.size(0),
       row_of.size(1), rows.size(1)},
      where_of(rows));
  return out;
}

at::Tensor rows_of_weight(const at::Tensor& weight_TK, const Call& call) {
  at::Tensor rows = at::empty({call.num_rows()}, weight_TK.options().requires_grad(false));
  kernels::to_rows(weight_TK.data_ptr<float>(), call.permutation.row_of.data_ptr<int32_t>(),
                   rows.data_ptr<float>(), rows.numel(), where_of(rows));
  return rows;
}

// X = gain * xhat + bias by row, H = X [gate; up]^T
at::Tensor pre_activation(const at::Tensor& xhat, const Call& call) {
  const at::Tensor x = gather(xhat, call, true);
  at::Tensor h = at::empty({x.size(0), 2 * call.table.expert_width}, x.options());
  call.for_each_expert([&](int64_t slot, int64_t begin, int64_t rows) {
    const Expert expert = call.table.expert(slot);
    at::Tensor part = h.narrow(0, begin, rows);
    const at::Tensor in = x.narrow(0, begin, rows);
    const at::Tensor& bias = expert.gate_up_bias;
    if (bias.defined()) part.copy_(bias.expand_as(part));
    multiply(part, in, expert.gate_up.t(), bias.defined());
  });
  return h;
}

// act holds the router's weight already, the bias does not.
at::Tensor down_rows(const at::Tensor& act, const at::Tensor& weight_rows, int64_t width,
                     const Call& call) {
  at::Tensor y = at::empty({act.size(0), width}, act.options());
  call.for_each_expert([&](int64_t slot, int64_t begin, int64_t rows) {
    const Expert expert = call.table.expert(slot);
    at::Tensor part = y.narrow(0, begin, rows);
    const at::Tensor in = act.narrow(0, begin, rows);
    const at::Tensor& bias = expert.down_bias;
    if (bias.defined() && weight_rows.defined())
      at::mul_out(part, weight_rows.narrow(0, begin, rows).unsqueeze(1), bias);
    else if (bias.defined())
      part.copy_(bias.expand_as(part));
    multiply(part, in, expert.down.t(), bias.defined());
  });
  return y;
}

void add_norm_gradients(const at::Tensor& drows, const at::Tensor& xhat, const Call& call) {
  const ExpertTable& table = call.table;
  if (!any_defined(table.gain_grad) && !any_defined(table.bias_grad)) return;
  const int64_t slots = table.gain.size(), width = xhat.size(1);
  const auto floats = xhat.options().dtype(at::kFloat).requires_grad(false);
  const at::Tensor dgain = at::empty({slots, width}, floats),
                   dbias = table.bias.empty() ? at::Tensor() : at::empty({slots, width}, floats);
  kernels::gain_backward({element_of(drows), element_of(xhat), drows.data_ptr(), xhat.data_ptr(),
                          call.permutation.token_of_row.data_ptr<int32_t>(),
                          call.permutation.count.data_ptr<int64_t>(), dgain.data_ptr<float>(),
                          dbias.defined() ? dbias.data_ptr<float>() : nullptr, slots, width},
                         where_of(xhat));
  for (const auto& [slot, first, rows] : call.parts()) {  // home slots share one norm
    if (table.gain_grad[slot].defined())
      at::Tensor(table.gain_grad[slot]).add_(dgain.select(0, slot));
    if (dbias.defined() && table.bias_grad[slot].defined())
      at::Tensor(table.bias_grad[slot]).add_(dbias.select(0, slot));
  }
}

// The down bias is weighted after the product, so the weight's gradient has a part of its own.
void add_bias_gradients(const at::Tensor& dh, const at::Tensor& dy, const at::Tensor& weight_rows,
                        at::Tensor dweight_rows, const Call& call) {
  call.for_each_expert([&](int64_t slot, int64_t begin, int64_t rows) {
    Expert expert = call.table.expert(slot);
    if (expert.gate_up_bias_grad.defined())
      expert.gate_up_bias_grad.add_(dh.narrow(0, begin, rows).sum(0, false, at::kFloat));
    if (!expert.down_bias.defined()) return;
    const at::Tensor answer = dy.narrow(0, begin, rows).to(at::kFloat);
    dweight_rows.narrow(0, begin, rows).addmv_(answer, expert.down_bias.to(at::kFloat));
    if (expert.down_bias_grad.defined())
      expert.down_bias_grad.addmv_(answer.t(), weight_rows.narrow(0, begin, rows));
  });
}

struct ExpertBlock : Function<ExpertBlock> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& xhat, const at::Tensor& weight,
                            const c10::intrusive_ptr<Call>& call) {
    const at::Tensor weight_rows = rows_of_weight(weight, *call);
    const at::Tensor h = pre_activation(xhat, *call);
    const at::Tensor act = activation_forward(h, weight_rows, call->table.activation);
    const at::Tensor y = down_rows(act, weight_rows, xhat.size(1), *call);
    ctx->save_for_backward({xhat, weight_rows, h});
    ctx->saved_data["call"] = c10::IValue::make_capsule(call);
    return combine(y, *call, false, y.scalar_type());
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &xhat = saved[0], &weight_rows = saved[1], &h = saved[2];
    const auto call = c10::static_intrusive_pointer_cast<Call>(ctx->saved_data["call"].toCapsule());
    const at::Tensor dy = gather(grads[0].contiguous(), *call, false);

    at::Tensor dact = at::empty({h.size(0), h.size(1) / 2}, h.options());
    call->for_each_expert([&](int64_t slot, int64_t begin, int64_t rows) {
      at::Tensor part = dact.narrow(0, begin, rows);
      multiply(part, dy.narrow(0, begin, rows), call->table.expert(slot).down);
    });
    const auto [dh, act, dweight_rows] =
        activation_backward(h, weight_rows, dact, call->table.activation);
    const bool wanted = ctx->needs_input_grad(0) || call->trains_norms();
    const at::Tensor dx = input_gradients(xhat, dy, dh, act, *call, wanted);
    add_bias_gradients(dh, dy, weight_rows, dweight_rows, *call);
    if (wanted) add_norm_gradients(dx, xhat, *call);

    const at::Tensor& row_of = call->permutation.row_of;
    at::Tensor dweight = at::empty(row_of.sizes(), weight_rows.options());
    kernels::from_rows(dweight_rows.data_ptr<float>(), row_of.data_ptr<int32_t>(),
                       dweight.data_ptr<float>(), row_of.numel(), where_of(dweight));
    return {wanted ? combine(dx, *call, true, xhat.scalar_type()) : at::Tensor(), dweight, {}};
  }

  // The gradient of the rows fed to the experts, where it is wanted; adds those of the experts'
  // matrices. What is frozen costs no product.
  static at::Tensor input_gradients(const at::Tensor& xhat, const at::Tensor& dy,
                                    const at::Tensor& dh, const at::Tensor& act, const Call& call,
                                    bool wanted) {
    const at::Tensor x = call.trains_experts() ? gather(xhat, call, true) : at::Tensor();
    at::Tensor dx =
        wanted ? at::empty({dy.size(0), xhat.size(1)}, call.row_options()) : at::Tensor();
    call.for_each_expert([&](int64_t slot, int64_t begin, int64_t rows) {
      const Expert expert = call.table.expert(slot);
      const at::Tensor dh_part = dh.narrow(0, begin, rows);
      if (wanted) multiply(dx.narrow(0, begin, rows), dh_part, expert.gate_up);
      if (expert.gate_up_grad.defined())
        add_product(expert.gate_up_grad, dh_part, x.narrow(0, begin, rows));
      add_product(expert.down_grad, dy.narrow(0, begin, rows), act.narrow(0, begin, rows));
    });
    return dx;
  }
};

}  // namespace

Permutation make_permutation(const at::Tensor& chosen_TK, const at::Tensor& count_S) {
  const int64_t rows = chosen_TK.numel();
  const auto ints = chosen_TK.options();
  Permutation p{at::empty({rows}, ints),
                at::empty({rows}, ints),
                at::empty(chosen_TK.sizes(), ints),
                count_S,
                {}};
  at::Tensor partial = chosen_TK.is_cuda()
                           ? at::empty({kernels::permute_partials(rows) * count_S.numel()}, ints)
                           : at::Tensor();
  kernels::permute(
      {chosen_TK.data_ptr<int32_t>(), count_S.data_ptr<int64_t>(),
       p.token_of_row.data_ptr<int32_t>(), p.slot_of_row.data_ptr<int32_t>(),
       p.row_of.data_ptr<int32_t>(), partial.defined() ? partial.data_ptr<int32_t>() : nullptr,
       chosen_TK.size(0), chosen_TK.size(1), count_S.numel()},
      where_of(chosen_TK));
  const at::Tensor host = count_S.cpu();
  p.host_count.assign(host.data_ptr<int64_t>(), host.data_ptr<int64_t>() + host.numel());
  return p;
}

at::Tensor expert_block(const at::Tensor& xhat_TD, const at::Tensor& weight_TK,
                        const Permutation& permutation, const ExpertTable& table) {
  const auto call = make_call(xhat_TD, permutation, table);
  // Below everything that trains nothing asks for a gradient, but the experts take theirs on the
  // way.
  const bool asked = xhat_TD.requires_grad() || weight_TK.requires_grad();
  const bool alone =
      at::GradMode::is_enabled() && !asked && (call->trains_experts() || call->trains_norms());
  return ExpertBlock::apply(alone ? xhat_TD.detach().requires_grad_() : xhat_TD, weight_TK, call);
}

at::Tensor expert_rows(const at::Tensor& xhat_TD, const Permutation& permutation,
                       const ExpertTable& table) {
  const at::NoGradGuard no_grad;
  const auto call = make_call(xhat_TD, permutation, table);
  const at::Tensor act =
      activation_forward(pre_activation(xhat_TD, *call), {}, call->table.activation);
  return down_rows(act, {}, xhat_TD.size(1), *call);
}

}  // namespace moue
