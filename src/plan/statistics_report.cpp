// What measure prints: loads, margins, output scales, and with a plan its calibration.
#include "moue/statistics.h"
#include "report/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace moue {

namespace {

// Largest share over the mean, minus one: 0 is balance.
double max_violation(const std::vector<double>& load) {
  return *std::max_element(load.begin(), load.end()) * static_cast<double>(load.size()) - 1;
}

int64_t dead(const std::vector<double>& load) { return std::count(load.begin(), load.end(), 0.0); }

Table layers_table(const Statistics& s) {
  Table table;
  table.key = "layers";
  table.title = "MoE layers";
  table.columns = {"MoE layer", "least load", "greatest load", "MaxVio",
                   "dead",      "margin",     "entropy",       "output rms"};
  for (size_t layer = 0; layer < s.load.size(); ++layer) {
    const auto [least, most] = std::minmax_element(s.load[layer].begin(), s.load[layer].end());
    table.rows.push_back({static_cast<int64_t>(layer), *least, *most, max_violation(s.load[layer]),
                          dead(s.load[layer]), s.margin[layer], s.entropy[layer],
                          s.output_rms[layer]});
  }
  return table;
}

Table calibration_table(const Statistics& s) {
  Table table;
  table.key = "calibration";
  table.title = "Calibrated foreign slots";
  const bool corrected = !s.correction.empty();
  const std::vector<std::vector<double>>& bias = corrected ? s.correction : s.beta;
  table.columns = {"MoE layer",
                   "foreign",
                   corrected ? "least c" : "least beta",
                   corrected ? "greatest c" : "greatest beta",
                   "least a",
                   "greatest a"};
  for (size_t layer = 0; layer < bias.size(); ++layer) {
    if (bias[layer].empty()) continue;
    const auto [low, high] = std::minmax_element(bias[layer].begin(), bias[layer].end());
    const auto [small, large] = std::minmax_element(s.scale[layer].begin(), s.scale[layer].end());
    table.rows.push_back({static_cast<int64_t>(layer), static_cast<int64_t>(bias[layer].size()),
                          *low, *high, *small, *large});
  }
  return table;
}

// Per layer, over donors within reach.
void add_similarity(const Similarity& similarity, Report& report) {
  Table table{"similarity",
              "Best score of each donor within reach for any of a layer's own experts",
              {"MoE layer", "donors", "best", "mean", "worst"},
              {}};
  double mean_of_all = 0;
  for (size_t layer = 0; layer < similarity.score.size(); ++layer) {
    double best = 0, worst = 1, sum = 0;
    int64_t donors = 0;
    for (const double score : similarity.score[layer]) {
      if (score == Similarity::kUnknown) continue;
      best = std::max(best, score);
      worst = std::min(worst, score);
      sum += score;
      ++donors;
    }
    if (donors == 0) continue;
    const double mean = sum / static_cast<double>(donors);
    mean_of_all += mean / static_cast<double>(similarity.score.size());
    table.rows.push_back({static_cast<int64_t>(layer), donors, best, mean, worst});
  }
  report.facts.push_back({"similarity", similarity.kind, ""});
  report.facts.push_back({"similarity_mean", mean_of_all, ""});
  report.facts.push_back({"similarity_reach", similarity.reach, "MoE layers"});
  report.facts.push_back({"similarity_samples", similarity.samples, "tok"});
  report.tables.push_back(std::move(table));
}

std::string home_text(Home home) { return fmt::format("{}.{}", home.layer, home.expert); }

void add_replacements(const std::vector<Replacement>& replacements, double loss, Report& report) {
  Table table{"replacements",
              "An expert answered for by another (MoE layer.expert), and the loss it adds",
              {"replaced", "best donor", "its score", "loss added", "random donor", "its score ",
               "loss added "},
              {}};
  int64_t wins = 0;
  double best = 0, random = 0;
  const auto count = static_cast<double>(replacements.size());
  for (const Replacement& r : replacements) {
    wins += r.best_loss < r.random_loss;
    best += (r.best_loss - loss) / count;
    random += (r.random_loss - loss) / count;
    table.rows.push_back({home_text(r.replaced), home_text(r.best), r.best_score,
                          r.best_loss - loss, home_text(r.random), r.random_score,
                          r.random_loss - loss});
  }
  report.facts.push_back({"replacements", static_cast<int64_t>(replacements.size()), ""});
  report.facts.push_back({"best_donor_wins", wins, "of the replacements"});
  report.facts.push_back({"best_donor_increase", best, "nats"});
  report.facts.push_back({"random_donor_increase", random, "nats"});
  report.tables.push_back(std::move(table));
}

}  // namespace

Report report_of(const Statistics& s) {
  Report report;
  report.verb = "measure";
  report.title = s.tokens_name;
  double worst = 0;
  int64_t unused = 0;
  for (const std::vector<double>& load : s.load) {
    worst = std::max(worst, max_violation(load));
    unused += dead(load);
  }
  report.facts = {{"tokens", s.tokens, "tok"},          {"loss", s.loss, "nats"},
                  {"perplexity", std::exp(s.loss), ""}, {"max_violation", worst, ""},
                  {"dead_experts", unused, ""},         {"fingerprint", s.fingerprint, ""}};
  report.tables.push_back(layers_table(s));
  if (!s.slots.empty()) {
    report.facts.push_back({"eps", s.eps, "of a layer's tokens"});
    report.tables.push_back(calibration_table(s));
  }
  if (!s.similarity.score.empty()) add_similarity(s.similarity, report);
  if (!s.replacements.empty()) add_replacements(s.replacements, s.loss, report);
  report.pictures.push_back(
      {"Load of each expert",
       square_chart("Share of a layer's choices", "expert", "MoE layer", s.load, "load")});
  return report;
}

}  // namespace moue
