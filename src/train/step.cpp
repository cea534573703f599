// Forward and backward of one optimizer step.
#include "train/step.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <optional>

namespace moue {
namespace {

// Sums over micro-batches that stay on the device until they are fetched together.
class Collector {
 public:
  Collector(Model& model, bool routing) {
    if (routing) routing_.emplace(model);
  }

  void watch(Pass& pass) {
    if (routing_) pass.observer = [this](const MoeView& view) { routing_->observe(view); };
  }

  void add(const Pass& pass) {
    if (!loss_.defined()) {
      loss_ = at::zeros_like(pass.loss_sum);
      divergence_ = at::zeros_like(pass.loss_sum);
      for (const Routed& routed : pass.routed) {
        chosen_.push_back(at::zeros_like(routed.probability_S));
        probability_.push_back(at::zeros_like(routed.probability_S));
      }
    }
    loss_.add_(pass.loss_sum);
    if (pass.divergence_sum.defined()) divergence_.add_(pass.divergence_sum);
    for (size_t layer = 0; layer < pass.routed.size(); ++layer) {
      chosen_[layer].add_(pass.routed[layer].count_S);
      probability_[layer].add_(pass.routed[layer].probability_S);
    }
  }

  // One copy to the host, whatever the number of layers.
  StepSums fetch() const {
    std::vector<at::Tensor> parts = {loss_.reshape({1}), divergence_.reshape({1})};
    parts.insert(parts.end(), chosen_.begin(), chosen_.end());
    parts.insert(parts.end(), probability_.begin(), probability_.end());
    if (routing_) parts.push_back(routing_->sums().flatten());
    const at::Tensor all = at::cat(parts).cpu();
    const double* at = all.data_ptr<double>();
    StepSums sums;
    sums.loss = *at++;
    sums.divergence = *at++;
    for (auto* rows : {&sums.routers.chosen, &sums.routers.probability}) {
      for (const at::Tensor& layer : chosen_) {
        rows->emplace_back(at, at + layer.numel());
        at += layer.numel();
      }
    }
    if (routing_) {
      const at::Tensor like = routing_->sums();
      sums.routing = all.narrow(0, all.numel() - like.numel(), like.numel()).view(like.sizes());
    }
    return sums;
  }

 private:
  at::Tensor loss_, divergence_;  // float64, as all here
  std::vector<at::Tensor> chosen_, probability_;
  std::optional<RoutingSums> routing_;
};

void set_balance(std::vector<at::Tensor>& v, const Model& model, const StepSettings& settings,
                 const PerSlot& f, at::Device device) {
  v.clear();
  const PerSlot rows = settings.family > 0 ? family_gradient(f, settings.family)
                                           : balance_gradient(model.pool(), settings.target, f);
  for (const std::vector<double>& row : rows) {
    v.push_back(at::tensor(row, at::kDouble).to(at::kFloat).to(device));
  }
}

}  // namespace

StepSums run_step(Model& model, const Batch& batch, const StepSettings& settings) {
  const int64_t rows = batch.rows_BT1.size(0), length = batch.rows_BT1.size(1) - 1;
  const auto tokens = static_cast<double>(rows * length);
  const auto layers = static_cast<double>(model.pool().num_moe_layers());
  const at::Device device = model.parameters().front().value.device();
  const double scale = batch.num_targets > 0 ? 1.0 / static_cast<double>(batch.num_targets) : 0.0;

  const auto v = std::make_shared<std::vector<at::Tensor>>();
  set_balance(*v, model, settings, settings.f, device);
  model.zero_grad();
  Collector collector(model, settings.routing);
  for (int64_t first = 0; first < rows; first += settings.micro_batch) {
    const int64_t part = std::min(settings.micro_batch, rows - first);
    Pass pass;
    pass.detach_trajectory = settings.detach_trajectory;
    pass.balance_v = v;
    pass.balance_scale = settings.alpha / (layers * tokens);
    pass.z_scale = settings.z_loss / (layers * tokens);
    pass.recompute = settings.recompute;
    collector.watch(pass);
    pass.distill = settings.distill;
    const at::Tensor mask =
        batch.mask_BT.defined() ? batch.mask_BT.narrow(0, first, part) : at::Tensor();
    const at::Tensor loss = model.loss(batch.rows_BT1.narrow(0, first, part), mask, scale, pass);
    collector.add(pass);
    if (settings.running) {
      const PerSlot f = shares_of(collector.fetch().routers).f;
      set_balance(*v, model, settings, f, device);
    }
    if (loss.requires_grad()) loss.backward();  // a stage may move nothing
    model.finish_backward();
  }
  StepSums sums = collector.fetch();
  sums.loss *= scale;
  sums.divergence *= scale;
  sums.routers.tokens = tokens;
  return sums;
}

}  // namespace moue
