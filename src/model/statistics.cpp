// What a running model shows: loads, margins, output scales, and the calibration of foreign slots.
#include "model/statistics.h"

#include <cmath>

#include "model/router.h"
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

// Foreign slots of a layer before calibration: what their experts have at home.
struct Start {
  at::Tensor rows;                       // float32 [S - N, D]
  std::vector<double> bias, correction;  // [S - N]
};

at::Tensor row(const std::vector<double>& values, const at::Tensor& like) {
  return at::tensor(values, like.options().dtype(at::kFloat));
}

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
      start_.push_back(start_of(layer));
      // The ceil((1 - eps_p) T)-th smallest is the (T + 1 - that)-th largest.
      const double share = foreign > 0 ? eps / static_cast<double>(foreign) : 0;
      const auto rank =
          static_cast<int64_t>(std::ceil((1.0 - share) * static_cast<double>(tokens)));
      top_.emplace_back(foreign, tokens + 1 - rank);
    }
  }

  void observe(const MoeView& view) {
    const int64_t N = model_.pool().experts_per_layer, K = model_.spec().experts_per_token;
    const RouterSpec& rule = model_.spec().router;
    const at::Tensor home = view.routed->z_TS.narrow(1, 0, N);
    const int64_t candidates = N / rule.groups * std::min(rule.groups, rule.kept_groups);
    const at::Tensor key = home_keys(home, model_.correction(view.moe_layer), rule);
    const at::Tensor best = std::get<0>(key.topk(std::min(K + 1, candidates), 1));
    LayerSums& sums = layers_[view.moe_layer];
    const at::Tensor load = view.routed->count_S.narrow(0, 0, N).to(at::kDouble);
    sums.load = sums.load.defined() ? sums.load + load : load;
    if (K < candidates)
      sums.margin += (best.select(1, K - 1) - best.select(1, K)).sum(at::kDouble).item<double>();
    sums.entropy += entropy(home, rule);
    const at::Tensor outputs = model_.expert_outputs(view);
    sums.squares += outputs.square().sum(at::kDouble).item<double>();
    sums.outputs += static_cast<double>(outputs.numel());
    if (plan_ && start_[view.moe_layer].rows.size(0) > 0)
      top_[view.moe_layer].add(foreign_keys(view) - best.select(1, K - 1).unsqueeze(1));
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
  // Summed over tokens, in nats, of the shares of the scores.
  static double entropy(const at::Tensor& z_TN, const RouterSpec& rule) {
    const at::Tensor score = rule.score == RouterScore::Sigmoid ? at::log_sigmoid(z_TN) : z_TN;
    const at::Tensor log_share = score.log_softmax(1);
    return -(log_share.exp() * log_share).sum(at::kDouble).item<double>();
  }

  // The model's experts by home: a plan's new experts are not among them, their donors are.
  Start start_of(int64_t layer) {
    const int64_t N = plan_->experts_per_layer;
    const std::vector<int32_t>& slots = plan_->slots[layer];
    Start start;
    std::vector<at::Tensor> rows;
    for (size_t slot = N; slot < slots.size(); ++slot) {
      const Home home = plan_->home[slots[slot]];
      const int64_t physical = home.layer * N + home.expert;
      rows.push_back(model_.home_router_row(physical));
      start.bias.push_back(model_.home_router_bias(physical));
      const at::Tensor correction = model_.correction(home.layer);
      start.correction.push_back(correction.defined() ? correction[home.expert].item<double>() : 0);
    }
    start.rows = rows.empty() ? at::empty({0, model_.spec().width}) : at::stack(rows);
    return start;
  }

  // What foreign slots would be chosen by if they were open, before calibration: [T, S - N].
  at::Tensor foreign_keys(const MoeView& view) const {
    const RouterSpec& rule = model_.spec().router;
    const Start& start = start_[view.moe_layer];
    const at::Tensor u = rule.float32_logits ? view.u_TD.to(at::kFloat) : view.u_TD;
    const at::Tensor z =
        at::linear(u, start.rows.to(u.scalar_type())).to(at::kFloat) + row(start.bias, u);
    if (rule.score != RouterScore::Sigmoid) return z;
    return at::sigmoid(z) + row(start.correction, u);
  }

  // The quantile is taken from beta, or from c in families with a correction.
  void fill_calibration(Statistics& s) const {
    const int64_t N = model_.pool().experts_per_layer;
    const bool corrected = model_.spec().router.correction;
    s.slots = plan_->slots;
    s.donors.assign(plan_->home.begin() + plan_->num_source(), plan_->home.end());
    for (size_t layer = 0; layer < s.slots.size(); ++layer) {
      std::vector<double>& scale = s.scale.emplace_back();
      s.beta.push_back(start_[layer].bias);
      if (corrected) s.correction.push_back(start_[layer].correction);
      if (start_[layer].rows.size(0) == 0) continue;
      const at::Tensor delta = top_[layer].smallest().to(at::kDouble).cpu();
      std::vector<double>& moved = corrected ? s.correction.back() : s.beta.back();
      for (int64_t i = 0; i < delta.numel(); ++i) {
        const Home home = plan_->home[s.slots[layer][N + i]];
        moved[i] -= delta.data_ptr<double>()[i];
        scale.push_back(s.output_rms[layer] / s.output_rms[home.layer]);
      }
    }
  }

  Model& model_;
  const Pool* plan_;
  int64_t tokens_;
  std::vector<LayerSums> layers_;
  std::vector<Start> start_;
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
