// What a running model shows: loads, margins, output scales, and the calibration of foreign slots.
#include "model/statistics.h"

#include <cmath>

#include "model/torch.h"
#include "moue/error.h"
#include "moue/log.h"

namespace moue {
namespace {

// The largest values seen so far, per slot: a quantile near the top needs no more.
class TopValues {
 public:
  TopValues(int64_t slots, int64_t kept) : kept_(kept), top_(at::empty({0, slots}, at::kFloat)) {}
  void add(const at::Tensor& values_TS) {
    const at::Tensor all = at::cat({top_.to(values_TS.device()), values_TS});
    top_ = std::get<0>(all.topk(std::min(kept_, all.size(0)), 0));
  }
  at::Tensor smallest() const { return top_.select(0, top_.size(0) - 1); }

 private:
  int64_t kept_;
  at::Tensor top_;
};

// Sums over all tokens of one MoE layer.
struct LayerSums {
  at::Tensor load;  // float64 [N]
  double margin = 0, entropy = 0, squares = 0, outputs = 0;
};

class Collector {
 public:
  Collector(Model& model, const Pool* plan, double eps, int64_t tokens)
      : model_(model), plan_(plan), tokens_(tokens), layers_(model.pool().num_moe_layers()) {
    for (int64_t layer = 0; plan && layer < plan->num_moe_layers(); ++layer) {
      const int64_t foreign = plan->num_foreign(layer);
      rows_.push_back(foreign_rows(layer));
      // The ceil((1 - eps_p) T)-th smallest is the (T + 1 - that)-th largest.
      const double share = foreign > 0 ? eps / static_cast<double>(foreign) : 0;
      const auto rank =
          static_cast<int64_t>(std::ceil((1.0 - share) * static_cast<double>(tokens)));
      top_.emplace_back(foreign, tokens + 1 - rank);
    }
  }

  void observe(const MoeView& view) {
    const int64_t N = model_.pool().experts_per_layer, K = model_.spec().experts_per_token;
    const at::Tensor home = view.routed->z_TS.narrow(1, 0, N);
    const at::Tensor best = std::get<0>(home.topk(std::min(K + 1, N), 1));
    LayerSums& sums = layers_[view.moe_layer];
    const at::Tensor load = view.routed->count_S.narrow(0, 0, N).to(at::kDouble);
    sums.load = sums.load.defined() ? sums.load + load : load;
    if (K < N)
      sums.margin += (best.select(1, K - 1) - best.select(1, K)).sum(at::kDouble).item<double>();
    const at::Tensor log_probability = home.log_softmax(1);
    sums.entropy -= (log_probability.exp() * log_probability).sum(at::kDouble).item<double>();
    const at::Tensor outputs = model_.expert_outputs(view);
    sums.squares += outputs.square().sum(at::kDouble).item<double>();
    sums.outputs += static_cast<double>(outputs.numel());
    if (!plan_ || rows_[view.moe_layer].size(0) == 0) return;
    const at::Tensor rows = rows_[view.moe_layer].to(view.u_TD.scalar_type());
    top_[view.moe_layer].add(at::linear(view.u_TD, rows).to(at::kFloat) -
                             best.select(1, K - 1).unsqueeze(1));
  }

  void fill(Statistics& s) const {
    const double T = static_cast<double>(tokens_);
    for (const LayerSums& sums : layers_) {
      const at::Tensor load = (sums.load / sums.load.sum()).cpu();
      s.load.emplace_back(load.data_ptr<double>(), load.data_ptr<double>() + load.numel());
      s.margin.push_back(sums.margin / T);
      s.entropy.push_back(sums.entropy / T);
      s.output_rms.push_back(std::sqrt(sums.squares / sums.outputs));
    }
    if (plan_) fill_calibration(s);
  }

 private:
  // The model's experts by home: a plan's new experts are not among them, their donors are.
  at::Tensor foreign_rows(int64_t layer) {
    const std::vector<int32_t>& slots = plan_->slots[layer];
    std::vector<at::Tensor> rows;
    for (size_t slot = plan_->experts_per_layer; slot < slots.size(); ++slot) {
      const Home home = plan_->home[slots[slot]];
      rows.push_back(model_.home_router_row(home.layer * plan_->experts_per_layer + home.expert));
    }
    return rows.empty() ? at::empty({0, model_.spec().width}) : at::stack(rows);
  }

  void fill_calibration(Statistics& s) const {
    const int64_t N = model_.pool().experts_per_layer;
    s.slots = plan_->slots;
    s.donors.assign(plan_->home.begin() + plan_->num_source(), plan_->home.end());
    for (size_t layer = 0; layer < s.slots.size(); ++layer) {
      std::vector<double>&beta = s.beta.emplace_back(), &scale = s.scale.emplace_back();
      if (rows_[layer].size(0) == 0) continue;
      const at::Tensor delta = top_[layer].smallest().to(at::kDouble).cpu();
      for (int64_t i = 0; i < delta.numel(); ++i) {
        const Home home = plan_->home[s.slots[layer][N + i]];
        beta.push_back(-delta.data_ptr<double>()[i]);
        scale.push_back(s.output_rms[layer] / s.output_rms[home.layer]);
      }
    }
  }

  Model& model_;
  const Pool* plan_;
  int64_t tokens_;
  std::vector<LayerSums> layers_;
  std::vector<at::Tensor> rows_;
  std::vector<TopValues> top_;
};

bool is_closed(const Visibility& visibility, int64_t home) {
  for (const auto& layer : visibility) {
    if (std::any_of(layer.begin() + home, layer.end(), [](double m) { return m > 0; }))
      return false;
  }
  return true;
}

}  // namespace

Statistics collect_statistics(Model& model, const Pool* plan, double eps,
                              const at::Tensor& windows_NT1, int64_t batch) {
  if (!is_closed(model.visibility(), model.pool().experts_per_layer)) {
    fail("measure",
         "the model has open foreign slots, calibration wants a closed one; measure its source");
  }
  const at::NoGradGuard no_grad;
  const int64_t windows = windows_NT1.size(0), length = windows_NT1.size(1) - 1;
  Collector collector(model, plan, eps, windows * length);
  double loss = 0;
  for (int64_t begin = 0; begin < windows; begin += batch) {
    Pass pass;
    pass.keep_records = false;
    pass.observer = [&](const MoeView& view) { collector.observe(view); };
    model.loss(windows_NT1.narrow(0, begin, std::min(batch, windows - begin)), {}, 1.0, pass);
    loss += pass.loss_sum.item<double>();
    log_progress({"measure", static_cast<double>(std::min(windows, begin + batch) * length),
                  static_cast<double>(windows * length), "tok", ""});
  }
  Statistics statistics;
  statistics.tokens = windows * length;
  statistics.loss = loss / static_cast<double>(statistics.tokens);
  statistics.eps = plan ? eps : 0;
  collector.fill(statistics);
  return statistics;
}

}  // namespace moue
