// What opening a closed pool would do.
#include "model/opening.h"

#include <algorithm>

#include "model/router.h"
#include "model/torch.h"

namespace moue {
namespace {

// Foreign rows and their biases, by MoE layer.
struct Foreign {
  at::Tensor rows, bias;
};

std::vector<Foreign> foreign_of(Model& model) {
  std::vector<Foreign> foreign(model.pool().num_moe_layers());
  for (const Parameter& parameter : model.parameters()) {
    if (parameter.kind == ParameterKind::ForeignRow)
      foreign[parameter.moe_layer].rows = parameter.value.detach();
    if (parameter.kind == ParameterKind::RouterBias)
      foreign[parameter.moe_layer].bias = parameter.value.detach();
  }
  return foreign;
}

// Tokens whose best foreign key beats the last home key that is chosen.
int64_t count_changed(const MoeView& view, const Foreign& foreign, Model& model) {
  if (foreign.rows.size(0) == 0) return 0;
  const int64_t N = model.pool().experts_per_layer, K = model.spec().experts_per_token;
  const RouterSpec& rule = model.spec().router;
  const at::Tensor correction = model.correction(view.moe_layer);
  const at::Tensor home = home_keys(view.routed->z_TS.narrow(1, 0, N), correction, rule);
  const at::Tensor last = std::get<0>(home.topk(K, 1)).select(1, K - 1);
  const at::Tensor u = rule.float32_logits ? view.u_TD.to(at::kFloat) : view.u_TD;
  at::Tensor key = at::linear(u, foreign.rows.to(u.scalar_type())).to(at::kFloat) + foreign.bias;
  if (rule.score == RouterScore::Sigmoid) key = at::sigmoid(key);
  if (correction.defined()) key = key + correction.narrow(0, N, key.size(1));
  return std::get<0>(key.max(1)).gt(last).sum().item<int64_t>();
}

}  // namespace

OpeningEffect effect_of_opening(Model& model, const at::Tensor& windows_NT1, int64_t batch,
                                const at::Tensor& mask_NT) {
  const at::NoGradGuard no_grad;
  const Visibility closed = model.visibility();
  const std::vector<Foreign> foreign = foreign_of(model);
  const int64_t windows = windows_NT1.size(0), length = windows_NT1.size(1) - 1;
  const auto tokens = static_cast<double>(windows * length);
  int64_t counted = 0;
  OpeningEffect effect{std::vector<double>(foreign.size(), 0.0), 0, 0};
  for (int64_t begin = 0; begin < windows; begin += batch) {
    Pass pass;
    pass.keep_records = false;
    pass.observer = [&](const MoeView& view) {
      effect.changed[view.moe_layer] +=
          static_cast<double>(count_changed(view, foreign[view.moe_layer], model)) / tokens;
    };
    const int64_t rows = std::min(batch, windows - begin);
    const at::Tensor mask = mask_NT.defined() ? mask_NT.narrow(0, begin, rows) : at::Tensor();
    model.loss(windows_NT1.narrow(0, begin, rows), mask, 1.0, pass);
    effect.loss_closed += pass.loss_sum.item<double>();
    counted += pass.num_targets;
  }
  if (counted > 0) effect.loss_closed /= static_cast<double>(counted);
  model.set_visibility(open_visibility(model.pool()));
  effect.loss_open = evaluate(model, windows_NT1, batch, mask_NT).loss;
  model.set_visibility(closed);
  return effect;
}

}  // namespace moue
