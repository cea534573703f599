// Choosing: the router kernel and the trajectory read as differentiable functions.
#include "model/router.h"

#include "kernels/permute.h"
#include "kernels/router.h"
#include "kernels/trajectory.h"
#include "model/ops.h"
#include "model/torch.h"

namespace moue {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

kernels::RouterRule::Score score_of(RouterScore score) {
  using Score = kernels::RouterRule::Score;
  switch (score) {
    case RouterScore::Sigmoid:
      return Score::Sigmoid;
    case RouterScore::Chosen:
      return Score::Chosen;
    case RouterScore::Sparse:
      return Score::Sparse;
    default:
      return Score::Softmax;
  }
}

kernels::RouterRule rule_of(const RouterSpec& spec) {
  using GroupScore = kernels::RouterRule::GroupScore;
  return {.score = score_of(spec.score),
          .renormalise = spec.renormalise,
          .norm_power = static_cast<float>(spec.norm_power),
          .norm_eps = static_cast<float>(spec.norm_eps),
          .scale = static_cast<float>(spec.scale),
          .groups = spec.groups,
          .kept_groups = spec.kept_groups,
          .group_score = spec.group_score == moue::GroupScore::SumOfTwo ? GroupScore::SumOfTwo
                                                                        : GroupScore::Best,
          .jitter = static_cast<float>(spec.jitter),
          .round_scores = spec.score_in_logits_dtype,
          .round_gates = spec.score_in_logits_dtype || spec.gates_in_logits_dtype};
}

// What the two directions share and autograd does not see.
struct RouterCall : torch::CustomClassHolder {
  kernels::RouterRule rule{};
  int64_t experts_per_token = 0;
  at::Tensor log_visibility, correction, pool_bias;
  std::shared_ptr<std::vector<at::Tensor>> balance_v;
  double balance_scale = 0;
  int64_t moe_layer = 0;
  Routed routed;
};

template <class T>
T* pointer(const at::Tensor& x) {
  return x.defined() ? x.data_ptr<T>() : nullptr;
}

void* raw(const at::Tensor& x) { return x.defined() ? x.data_ptr() : nullptr; }

struct Route : Function<Route> {
  // What an ordinary MoE lacks travels as nullopt: Function takes no undefined tensors.
  using Maybe = std::optional<at::Tensor>;
  static variable_list forward(AutogradContext* ctx, const at::Tensor& home_in,
                               const Maybe& foreign_in, const Maybe& bonus_in, const Maybe& beta_in,
                               const Maybe& scale_in, const c10::intrusive_ptr<RouterCall>& call) {
    const at::Tensor none;
    const at::Tensor bonus = bonus_in.value_or(none), beta = beta_in.value_or(none),
                     scale = scale_in.value_or(none);
    const at::Tensor foreign = foreign_in ? foreign_in->contiguous() : none;
    const at::Tensor home = home_in.contiguous();
    const int64_t T = home.size(0), N = home.size(1), S = call->log_visibility.numel(),
                  K = call->experts_per_token;
    const auto floats = home.options().dtype(at::kFloat).requires_grad(false);
    Routed& routed = call->routed;
    routed.z_TS = at::empty({T, S}, floats);
    routed.chosen_TK = at::empty({T, K}, floats.dtype(at::kInt));
    at::Tensor gate = at::empty({T, K}, floats), weight = at::empty({T, K}, floats);
    routed.count_S = at::empty({S}, floats.dtype(at::kLong));
    routed.probability_S = at::empty({S}, floats.dtype(at::kDouble));
    at::Tensor partial = at::empty({kernels::router_partials(T) * S}, floats.dtype(at::kDouble));
    kernels::router_forward({element_of(home),
                             call->rule,
                             home.data_ptr(),
                             raw(foreign),
                             pointer<float>(beta),
                             pointer<float>(bonus),
                             call->log_visibility.data_ptr<float>(),
                             pointer<float>(call->correction),
                             call->pool_bias.data_ptr<float>(),
                             pointer<float>(scale),
                             routed.z_TS.data_ptr<float>(),
                             routed.chosen_TK.data_ptr<int32_t>(),
                             gate.data_ptr<float>(),
                             weight.data_ptr<float>(),
                             routed.count_S.data_ptr<int64_t>(),
                             routed.probability_S.data_ptr<double>(),
                             partial.data_ptr<double>(),
                             T,
                             N,
                             S,
                             K},
                            where_of(home));
    routed.gate_TK =
        gate.detach();  // the output itself would close a cycle through its own graph node
    ctx->save_for_backward({routed.z_TS, routed.chosen_TK, routed.gate_TK, scale, home});
    ctx->saved_data["pooled"] = foreign.defined();
    ctx->saved_data["bonus"] = bonus.defined();
    ctx->saved_data["call"] = c10::IValue::make_capsule(call);
    return {gate, weight};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &z = saved[0], &chosen = saved[1], &gate = saved[2], &scale = saved[3],
                     &home = saved[4];
    const auto call =
        c10::static_intrusive_pointer_cast<RouterCall>(ctx->saved_data["call"].toCapsule());
    const int64_t T = z.size(0), S = z.size(1), N = home.size(1);
    const at::Tensor dgate = grads[0].defined() ? grads[0].contiguous() : grads[0];
    const at::Tensor dweight = grads[1].defined() ? grads[1].contiguous() : grads[1];
    const bool balanced = call->balance_v && !call->balance_v->empty() && call->balance_scale != 0;
    const at::Tensor v = balanced ? (*call->balance_v)[call->moe_layer] : at::Tensor();
    at::Tensor dz = at::empty_like(z), dhome = at::empty_like(home);
    at::Tensor dforeign = at::empty({T, S - N}, home.options()),
               dbeta = at::empty({S - N}, z.options());
    at::Tensor dscale = at::empty_like(dbeta);
    at::Tensor partial = at::empty({kernels::router_partials(T) * 2 * (S - N)}, z.options());
    kernels::router_backward({element_of(home),
                              call->rule,
                              z.data_ptr<float>(),
                              chosen.data_ptr<int32_t>(),
                              gate.data_ptr<float>(),
                              pointer<float>(scale),
                              pointer<float>(dgate),
                              pointer<float>(dweight),
                              pointer<float>(v),
                              static_cast<float>(call->balance_scale),
                              dz.data_ptr<float>(),
                              dhome.data_ptr(),
                              dforeign.data_ptr(),
                              dbeta.data_ptr<float>(),
                              dscale.data_ptr<float>(),
                              partial.data_ptr<float>(),
                              T,
                              N,
                              S,
                              chosen.size(1)},
                             where_of(z));
    const bool pooled = ctx->saved_data["pooled"].toBool(),
               bonus = ctx->saved_data["bonus"].toBool();
    return {dhome,
            pooled ? dforeign : at::Tensor(),
            bonus ? dz : at::Tensor(),
            pooled ? dbeta : at::Tensor(),
            pooled ? dscale : at::Tensor(),
            {}};
  }
};

struct TrajectoryRead : Function<TrajectoryRead> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& gate, const at::Tensor& key_in,
                            const at::Tensor& chosen, const Permutation* permutation) {
    const at::Tensor key = key_in.contiguous();
    at::Tensor read = at::empty({gate.size(0), key.size(1)}, gate.options().requires_grad(false));
    kernels::trajectory_read(
        {gate.data_ptr<float>(), chosen.data_ptr<int32_t>(), key.data_ptr<float>(),
         read.data_ptr<float>(), gate.size(0), gate.size(1), key.size(1)},
        where_of(gate));
    at::Tensor rows = at::empty({gate.numel()}, read.options());
    kernels::to_rows(gate.data_ptr<float>(), permutation->row_of.data_ptr<int32_t>(),
                     rows.data_ptr<float>(), rows.numel(), where_of(gate));
    ctx->save_for_backward({rows, chosen, key, permutation->token_of_row, permutation->count});
    return read;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &rows = saved[0], &chosen = saved[1], &key = saved[2];
    const at::Tensor dread = grads[0].contiguous();
    at::Tensor dgate = at::empty(chosen.sizes(), rows.options()), dkey = at::empty_like(key);
    kernels::trajectory_read_backward(
        {dread.data_ptr<float>(), rows.data_ptr<float>(), chosen.data_ptr<int32_t>(),
         key.data_ptr<float>(), saved[3].data_ptr<int32_t>(), saved[4].data_ptr<int64_t>(),
         dgate.data_ptr<float>(), dkey.data_ptr<float>(), chosen.size(0), chosen.size(1),
         key.size(0), key.size(1)},
        where_of(dread));
    return {dgate, dkey, {}, {}};
  }
};

}  // namespace

Choice choose(const RouterInputs& inputs, const RouterSpec& rule, int64_t experts_per_token,
              int64_t moe_layer, const Pass& pass) {
  auto call = c10::make_intrusive<RouterCall>();
  call->rule = rule_of(rule);
  call->experts_per_token = experts_per_token;
  call->log_visibility = inputs.log_visibility;
  call->correction = inputs.correction;
  call->pool_bias = inputs.pool_bias;
  call->balance_v = pass.balance_v;
  call->balance_scale = pass.balance_scale;
  call->moe_layer = moe_layer;
  const variable_list out =
      Route::apply(inputs.home_TN, maybe(inputs.foreign_TS), maybe(inputs.bonus_TS),
                   maybe(inputs.beta), maybe(inputs.scale), call);
  return {call->routed, out[0], out[1]};
}

at::Tensor home_keys(const at::Tensor& z_TN, const at::Tensor& correction, const RouterSpec& rule) {
  const int64_t T = z_TN.size(0), N = z_TN.size(1);
  at::Tensor key = rule.score == RouterScore::Sigmoid ? at::sigmoid(z_TN) : z_TN;
  if (correction.defined()) key = key + correction.narrow(0, 0, N);
  if (rule.kept_groups >= rule.groups) return key;
  const at::Tensor grouped = key.view({T, rule.groups, N / rule.groups});
  const int64_t judged =
      rule.group_score == GroupScore::SumOfTwo ? std::min<int64_t>(2, grouped.size(2)) : 1;
  const at::Tensor score = std::get<0>(grouped.topk(judged, 2)).sum(2);
  const at::Tensor kept = std::get<1>(score.topk(rule.kept_groups, 1));
  const at::Tensor dropped = at::ones_like(score, at::kBool).scatter(1, kept, false);
  return grouped.masked_fill(dropped.unsqueeze(2), -std::numeric_limits<float>::infinity())
      .view({T, N});
}

at::Tensor trajectory_read(const at::Tensor& gate_TK, const at::Tensor& key_SD,
                           const at::Tensor& chosen_TK, const Permutation& permutation) {
  return TrajectoryRead::apply(gate_TK, key_SD, chosen_TK, &permutation);
}

}  // namespace moue
