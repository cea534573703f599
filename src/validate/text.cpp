// G3: the result beside its source on text: loss, KL, top-1, routing, with error bars.
#include <fmt/format.h>

#include <cmath>

#include "model/torch.h"
#include "moue/log.h"
#include "validate/model.h"

namespace moue {
namespace {

// A mean over windows and its standard error.
class Mean {
 public:
  void add(const at::Tensor& per_window) { all_.push_back(per_window.to(at::kDouble).cpu()); }
  double mean() const { return values().mean().item<double>(); }
  double error() const {
    const at::Tensor v = values();
    return v.numel() > 1 ? v.std().item<double>() / std::sqrt(static_cast<double>(v.numel())) : 0.0;
  }

 private:
  at::Tensor values() const { return at::cat(all_); }
  std::vector<at::Tensor> all_;
};

struct LayerAgreement {
  double tokens = 0, agreed = 0, foreign = 0, margin = 0;
};

struct Text {
  Mean source_loss, result_loss, increase, kl, top1;
  std::vector<LayerAgreement> layers;
};

at::Tensor loss_of(const at::Tensor& log_probability, const at::Tensor& target) {
  return log_probability.gather(-1, target.unsqueeze(-1)).squeeze(-1).neg().mean(1);
}

// Chosen experts as physical ones, so that foreign and home choices can be compared.
at::Tensor physical(const Routed& routed, const Pool& pool, size_t layer) {
  const at::Tensor index =
      at::tensor(std::vector<int64_t>(pool.slots[layer].begin(), pool.slots[layer].end()));
  return index.index_select(0, routed.chosen_TK.cpu().reshape({-1}).to(at::kLong))
      .view(routed.chosen_TK.sizes());
}

void compare_routing(const Model& source, const Pass& a, const Model& result, const Pass& b,
                     Text& text) {
  text.layers.resize(a.routed.size());
  const int64_t K = source.spec().experts_per_token, N = source.pool().experts_per_layer;
  for (size_t layer = 0; layer < a.routed.size(); ++layer) {
    LayerAgreement& sum = text.layers[layer];
    const at::Tensor x = physical(a.routed[layer], source.pool(), layer);
    const at::Tensor y = physical(b.routed[layer], result.pool(), layer);
    const at::Tensor best =
        std::get<0>(b.routed[layer].z_TS.topk(std::min(K + 1, b.routed[layer].z_TS.size(1)), 1));
    sum.tokens += static_cast<double>(x.size(0));
    sum.agreed += x.unsqueeze(2).eq(y.unsqueeze(1)).sum().item<double>() / static_cast<double>(K);
    sum.foreign += b.routed[layer].chosen_TK.ge(N).sum().item<double>() / static_cast<double>(K);
    const at::Tensor margin = best.select(1, K - 1) - best.select(1, best.size(1) - 1);
    sum.margin += margin.masked_fill(margin.isinf(), 0).sum(at::kDouble).item<double>();
  }
}

void compare_rows(Model& source, Model& result, const at::Tensor& rows, Text& text) {
  const int64_t length = rows.size(1) - 1;
  const at::Tensor tokens = rows.narrow(1, 0, length);
  Pass a, b;
  const at::Tensor p = source.logits(tokens, a).to(at::kFloat).log_softmax(-1);
  const at::Tensor q = result.logits(tokens, b).to(at::kFloat).log_softmax(-1);
  const at::Tensor target = rows.narrow(1, 1, length).to(p.device());
  const at::Tensor before = loss_of(p, target), after = loss_of(q, target);
  text.source_loss.add(before);
  text.result_loss.add(after);
  text.increase.add(after - before);
  text.kl.add((p.exp() * (p - q)).sum(-1).mean(1));
  text.top1.add(p.argmax(-1).eq(q.argmax(-1)).to(at::kDouble).mean(1));
  compare_routing(source, a, result, b, text);
}

Check bounded(const std::string& name, const Mean& mean, double bound, const std::string& note) {
  Check check{
      name, Outcome::Pass, mean.mean(), {}, fmt::format("{} (+- {:.2g})", note, mean.error())};
  if (bound >= 0) {
    check.bound = bound;
    // Not below the bound is a failure for NaN too.
    check.outcome = mean.mean() <= bound ? Outcome::Pass : Outcome::Fail;
  } else if (!std::isfinite(mean.mean())) {
    check.outcome = Outcome::Fail;
  }
  return check;
}

Table routing_table(const Text& text) {
  Table table{"routing",
              "Routing against the source",
              {"MoE layer", "agreement", "foreign share", "margin"},
              {}};
  for (size_t layer = 0; layer < text.layers.size(); ++layer) {
    const LayerAgreement& sum = text.layers[layer];
    table.rows.push_back({static_cast<int64_t>(layer), sum.agreed / sum.tokens,
                          sum.foreign / sum.tokens, sum.margin / sum.tokens});
  }
  return table;
}

void report_text(const Text& text, const ValidateOptions& options, Report& report) {
  double foreign = 0, agreed = 0;
  for (const LayerAgreement& sum : text.layers) {
    foreign += sum.foreign / sum.tokens / static_cast<double>(text.layers.size());
    agreed += sum.agreed / sum.tokens / static_cast<double>(text.layers.size());
  }
  report.facts.insert(report.facts.end(),
                      {{"source_loss", text.source_loss.mean(), "nats"},
                       {"source_loss_error", text.source_loss.error(), "nats"},
                       {"result_loss", text.result_loss.mean(), "nats"},
                       {"result_loss_error", text.result_loss.error(), "nats"},
                       {"source_perplexity", std::exp(text.source_loss.mean()), ""},
                       {"result_perplexity", std::exp(text.result_loss.mean()), ""},
                       {"loss_increase", text.increase.mean(), "nats"},
                       {"loss_increase_error", text.increase.error(), "nats"},
                       {"kl", text.kl.mean(), "nats"},
                       {"top1_agreement", text.top1.mean(), ""},
                       {"routing_agreement", agreed, ""},
                       {"foreign_share", foreign, ""}});
  report.checks.push_back(
      bounded("G3 loss", text.increase, options.max_loss_increase, "nats above the source"));
  report.checks.push_back(bounded("G3 KL", text.kl, options.max_kl, "nats from the source"));
  report.tables.push_back(routing_table(text));
}

}  // namespace

void text_gate(const GateRun& run, Report& report) {
  const at::NoGradGuard no_grad;
  ModelOptions how = run.how;
  how.memory /= 2;  // two models at a time
  const auto source = Model::open(run.original, how), result = Model::open(run.result, how);
  const int64_t windows = run.windows_NT1.size(0), batch = std::min(windows, run.options.batch);
  Text text;
  for (int64_t begin = 0; begin < windows; begin += batch) {
    const int64_t rows = std::min(batch, windows - begin);
    compare_rows(*source, *result, run.windows_NT1.narrow(0, begin, rows), text);
    log_progress({"validate", static_cast<double>(begin + rows), static_cast<double>(windows),
                  "windows", "G3"});
  }
  report_text(text, run.options, report);
}

}  // namespace moue
