// The first stage of an upgrade.
#include "train/calibrate.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <span>

#include "model/statistics.h"
#include "moue/log.h"

namespace moue {

namespace {

// What the home layers of a layer's foreign slots have now.
class Homes {
 public:
  Homes(Model& model, int64_t moe_layer)
      : model_(model),
        slots_(std::span(model.pool().slots[moe_layer]).subspan(model.pool().experts_per_layer)) {}

  at::Tensor rows() const {
    std::vector<at::Tensor> rows;
    for (const int32_t physical : slots_) rows.push_back(model_.home_router_row(physical));
    return at::stack(rows);
  }
  at::Tensor biases() const {
    return collected([&](int32_t physical) { return model_.home_router_bias(physical); });
  }
  at::Tensor corrections() const {
    return collected([&](int32_t physical) {
      const Home home = model_.pool().home[physical];
      return model_.correction(home.layer)[home.expert].item<double>();
    });
  }

 private:
  template <class Number>
  at::Tensor collected(const Number& number) const {
    std::vector<double> values;
    for (const int32_t physical : slots_) values.push_back(number(physical));
    return at::tensor(values, at::kDouble);
  }

  Model& model_;
  std::span<const int32_t> slots_;
};

// A new expert is its donor again; both are rows of one stack.
void copy_donors(const Pool& pool, Parameter& stack) {
  if (!stack.frozen.empty() || stack.master.size(0) != pool.num_physical()) return;
  for (int64_t physical = pool.num_source(); physical < pool.num_physical(); ++physical) {
    const Home home = pool.home[physical];
    stack.master[physical].copy_(stack.master[home.layer * pool.experts_per_layer + home.expert]);
  }
}

}  // namespace

void start_foreign(Model& model) {
  const at::NoGradGuard no_grad;
  const Pool& pool = model.pool();
  for (Parameter& parameter : model.parameters()) {
    const ParameterKind kind = parameter.kind;
    if (kind == ParameterKind::Expert || kind == ParameterKind::ExpertBias)
      copy_donors(pool, parameter);
    if (parameter.moe_layer < 0 || pool.num_foreign(parameter.moe_layer) == 0) continue;
    const Homes homes(model, parameter.moe_layer);
    if (kind == ParameterKind::ForeignRow) parameter.master.copy_(homes.rows());
    if (kind == ParameterKind::RouterBias) parameter.master.copy_(homes.biases());
  }
  for (int64_t layer = 0; layer < pool.num_moe_layers(); ++layer) {
    const int64_t foreign = pool.num_foreign(layer);
    if (foreign == 0 || !model.correction(layer).defined()) continue;
    model.correction(layer)
        .narrow(0, pool.experts_per_layer, foreign)
        .copy_(Homes(model, layer).corrections());
  }
  model.refresh_values();
}

void calibrate(Model& model, const at::Tensor& windows_NT1, const TrainOptions& options) {
  const int64_t batch = options.micro_batch > 0 ? options.micro_batch : options.batch;
  const Statistics statistics =
      collect_statistics(model, &model.pool(), options.calibrate.eps, windows_NT1, batch);
  for (Parameter& parameter : model.parameters()) {
    const bool is_bias = parameter.kind == ParameterKind::RouterBias;
    if (!is_bias && parameter.kind != ParameterKind::RouterScale) continue;
    const auto& rows = is_bias ? statistics.beta : statistics.scale;
    parameter.master.copy_(at::tensor(rows[parameter.moe_layer], at::kDouble));
  }
  for (size_t layer = 0; layer < statistics.correction.size(); ++layer) {
    const std::vector<double>& rows = statistics.correction[layer];
    const auto foreign = static_cast<int64_t>(rows.size());
    model.correction(static_cast<int64_t>(layer))
        .narrow(0, model.pool().experts_per_layer, foreign)
        .copy_(at::tensor(rows, at::kDouble));
  }
  model.refresh_values();
  log_line("train", "calibrated {} and a of {} MoE layers on {} tokens",
           statistics.correction.empty() ? "beta" : "c", statistics.beta.size(), statistics.tokens);
}

}  // namespace moue
