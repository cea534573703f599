// One universal MoE block: normalise, choose, run the experts, carry the trajectory state.
#include "model/moe.h"

#include "model/dense.h"
#include "model/norm.h"
#include "model/ops.h"
#include "model/router.h"
#include "model/torch.h"

namespace moue {
namespace {

constexpr double kStateEps = 1e-6;

// < q_p, gamma_l * shat_l > for every slot of the layer, float32 [T, S].
at::Tensor trajectory_bonus(const at::Tensor& state, int64_t layer, const MoeContext& c) {
  const at::Tensor shat = rms_norm(state, {}, kStateEps);
  const at::Tensor query = c.weights->get(Weight::Query).index_select(0, c.slot_index[layer]);
  return at::mm(shat * c.weights->get(Weight::Gain, layer), query.t());
}

RouterInputs router_inputs(const at::Tensor& u, int64_t layer, const at::Tensor& state,
                           const MoeContext& c) {
  const int64_t source_layer = c.pool->moe_layers[layer];
  const at::Tensor x = c.spec->router.float32_logits ? u.to(at::kFloat) : u;
  const auto get = [&](Weight weight, int64_t at) {
    const at::Tensor value = c.weights->get(weight, at);
    return value.defined() ? value.to(x.scalar_type()) : value;
  };
  RouterInputs in;
  // Home and foreign rows are two products: one wider product would change the home logits' last
  // bits.
  in.home_TN = at::linear(x, get(Weight::Router, source_layer),
                          maybe(get(Weight::HomeRouterBias, source_layer)));
  in.log_visibility = c.log_visibility[layer];
  in.pool_bias = c.pool_bias.index_select(0, c.slot_index[layer]);
  in.correction = c.correction[layer];
  if (!c.is_moue) return in;
  in.foreign_TS = at::linear(x, get(Weight::ForeignRows, layer));
  in.beta = c.weights->get(Weight::RouterBias, layer);
  in.scale = c.weights->get(Weight::RouterScale, layer);
  if (state.defined()) in.bonus_TS = trajectory_bonus(state, layer, c);
  return in;
}

// z_scale times the sum over tokens of the squared log-sum-exp of the open slots' logits
// (ST-MoE, arXiv 2202.08906).
at::Tensor z_loss(const RouterInputs& in, double z_scale) {
  at::Tensor z = in.home_TN.to(at::kFloat);
  if (in.foreign_TS.defined()) z = at::cat({z, in.foreign_TS.to(at::kFloat) + in.beta}, 1);
  if (in.bonus_TS.defined()) z = z + in.bonus_TS;
  return (z + in.log_visibility).logsumexp(1).square().sum() * z_scale;
}

at::Tensor next_state(const at::Tensor& state, const Choice& choice, const Permutation& permutation,
                      int64_t layer, const MoeContext& c, bool detach) {
  const at::Tensor key = c.weights->get(Weight::Key).index_select(0, c.slot_index[layer]);
  const at::Tensor gate = detach ? choice.gate_TK.detach() : choice.gate_TK;
  const at::Tensor read = trajectory_read(gate, key, choice.routed.chosen_TK, permutation);
  const at::Tensor decay = at::sigmoid(c.weights->get(Weight::Decay));
  return decay * state + (1.0 - decay) * read;
}

// What every token gets beside its experts.
at::Tensor with_shared(const at::Tensor& routed, const at::Tensor& u, int64_t source_layer,
                       const MoeContext& c) {
  const auto get = [&](Weight weight) { return c.weights->get(weight, source_layer); };
  at::Tensor y = routed;
  if (const at::Tensor gate_up = get(Weight::SharedGateUp); gate_up.defined()) {
    y = y + dense_ffn(u, activation_of(*c.spec),
                      {gate_up, get(Weight::SharedDown), get(Weight::SharedMix)});
  }
  if (const at::Tensor bias = get(Weight::MlpBias); bias.defined()) y = y + bias;
  return y;
}

// The expert's outputs times a factor; no gradients.
Expert scaled(const Expert& expert, double factor) {
  Expert result{expert.gate_up, expert.down * factor, expert.gate_up_bias, {}, {}, {}, {}, {}};
  if (expert.down_bias.defined()) result.down_bias = expert.down_bias * factor;
  return result;
}

}  // namespace

ExpertTable expert_table(int64_t moe_layer, const MoeContext& c) {
  const std::vector<int32_t>& slots = c.pool->slots[moe_layer];
  ExpertTable table;
  table.expert = [&c, &slots, moe_layer](int64_t slot) {
    const auto scale = c.output_scale.find({moe_layer, slot});
    const Expert expert = c.weights->expert(slots[slot]);
    return scale == c.output_scale.end() ? expert : scaled(expert, scale->second);
  };
  table.expert_width = c.spec->expert_width;
  table.activation = activation_of(*c.spec);
  table.is_resident = c.weights->has_experts();
  for (int32_t physical : slots) {
    const int64_t fed_through =
        c.pool->foreign_input == ForeignInput::Home ? c.pool->home[physical].layer : moe_layer;
    const int64_t layer = c.pool->moe_layers[fed_through];
    table.gain.push_back(c.weights->get(Weight::MlpNorm, layer).detach());
    table.gain_grad.push_back(c.weights->grad(Weight::MlpNorm, layer));
    if (!c.spec->norm.bias) continue;
    table.bias.push_back(c.weights->get(Weight::MlpNormBias, layer).detach());
    table.bias_grad.push_back(c.weights->grad(Weight::MlpNormBias, layer));
  }
  return table;
}

Block moe_block(const at::Tensor& hidden_TD, int64_t moe_layer, at::Tensor& state,
                const MoeContext& c, Pass& pass) {
  const int64_t source_layer = c.pool->moe_layers[moe_layer];
  const at::Tensor xhat = normalise(hidden_TD, c.spec->norm);
  const at::Tensor u = apply_gain(xhat,
                                  {c.weights->get(Weight::MlpNorm, source_layer),
                                   c.weights->get(Weight::MlpNormBias, source_layer)},
                                  hidden_TD.scalar_type());
  const RouterInputs inputs = router_inputs(u, moe_layer, state, c);
  const Choice choice = choose(inputs, c.spec->router, c.spec->experts_per_token, moe_layer, pass);
  const Permutation permutation = make_permutation(choice.routed.chosen_TK, choice.routed.count_S);
  const at::Tensor y =
      expert_block(xhat, choice.weight_TK, permutation, expert_table(moe_layer, c));
  if (state.defined())
    state = next_state(state, choice, permutation, moe_layer, c, pass.detach_trajectory);
  if (pass.observer) {
    Routed routed = choice.routed;
    if (inputs.bonus_TS.defined()) routed.bonus_TS = inputs.bonus_TS.detach();
    pass.observer({moe_layer, xhat.detach(), u.detach(), &routed});
  }
  if (pass.keep_records) pass.routed.push_back(choice.routed);
  return {with_shared(y, u, source_layer, c), u,
          pass.z_scale != 0 ? z_loss(inputs, pass.z_scale) : at::Tensor()};
}

}  // namespace moue
