// What measure prints: loads, margins, output scales, and with a plan its calibration.
#include "moue/statistics.h"
#include "report/svg.h"

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
  table.columns = {"MoE layer", "foreign", "least beta", "greatest beta", "least a", "greatest a"};
  for (size_t layer = 0; layer < s.beta.size(); ++layer) {
    if (s.beta[layer].empty()) continue;
    const auto [low, high] = std::minmax_element(s.beta[layer].begin(), s.beta[layer].end());
    const auto [small, large] = std::minmax_element(s.scale[layer].begin(), s.scale[layer].end());
    table.rows.push_back({static_cast<int64_t>(layer), static_cast<int64_t>(s.beta[layer].size()),
                          *low, *high, *small, *large});
  }
  return table;
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
  report.pictures.push_back(
      {"Load of each expert",
       square_chart("Share of a layer's choices", "expert", "MoE layer", s.load, "load")});
  return report;
}

}  // namespace moue
