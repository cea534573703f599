// A run's files as a Report: what it reached, in facts and tables.
#include "train/run_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "core/files.h"
#include "moue/train.h"

namespace fs = std::filesystem;

namespace moue {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

double last_loss(const RunLog& run) {
  return run.steps.empty() ? kNone : run.steps.back().mean_loss;
}

double median_speed(const RunLog& run) {
  std::vector<double> speeds;
  for (const StepLine& line : run.steps) {
    if (std::isfinite(line.tokens_per_second)) speeds.push_back(line.tokens_per_second);
  }
  if (speeds.empty()) return kNone;
  const auto middle = speeds.begin() + static_cast<std::ptrdiff_t>(speeds.size() / 2);
  std::nth_element(speeds.begin(), middle, speeds.end());
  return *middle;
}

int64_t num_skipped(const RunLog& run) {
  return std::count_if(run.steps.begin(), run.steps.end(),
                       [](const StepLine& line) { return line.skipped; });
}

double best_held_out(const RunLog& run) {
  double best = kNone;
  for (const HeldOutLine& line : run.held_out) best = std::fmin(best, line.loss);
  return best;
}

int64_t last_step(const RunLog& run) { return run.steps.empty() ? 0 : run.steps.back().step; }

std::string stage_of(const RunFacts& facts, int64_t step) {
  std::string name = "before the first step";
  for (const StagePlan& stage : facts.stages) {
    if (step > stage.from) name = stage.name;
  }
  return name;
}

void add_number(Report& report, const char* key, double value, const char* unit = "") {
  if (std::isfinite(value)) report.facts.push_back({key, value, unit});
}

void add_facts(Report& report, const RunLog& run) {
  const int64_t step = last_step(run);
  report.facts.push_back({"steps", step, ""});
  if (run.facts) {
    const RunFacts& facts = *run.facts;
    report.facts.push_back({"steps_planned", facts.steps, ""});
    report.facts.push_back({"stage", step == facts.steps ? "finished" : stage_of(facts, step), ""});
    report.facts.push_back({"tokens", step * facts.tokens_per_step, "tok"});
    report.facts.push_back({"model", facts.model, ""});
    report.facts.push_back({"control", facts.control, ""});
  }
  report.facts.push_back({"skipped", num_skipped(run), ""});
  add_number(report, "loss", last_loss(run), "nats");
  if (!run.held_out.empty()) {
    add_number(report, "held_out_first", run.held_out.front().loss, "nats");
    add_number(report, "held_out_last", run.held_out.back().loss, "nats");
    add_number(report, "held_out_standard_error", run.held_out.back().standard_error, "nats");
    add_number(report, "held_out_best", best_held_out(run), "nats");
  }
  if (!run.steps.empty()) {
    const StepLine& last = run.steps.back();
    add_number(report, "foreign_share", last.foreign_share);
    add_number(report, "max_vio", last.worst_max_vio);
    add_number(report, "pool_max_vio", last.pool_max_vio);
    add_number(report, "dead_experts", last.dead);
  }
  if (!run.routing.empty()) {
    add_number(report, "distinct_experts", run.routing.back().distinct);
    add_number(report, "utilisation", run.routing.back().utilisation);
  }
  add_number(report, "tokens_per_second", median_speed(run), "tok/s");
}

// The last step at which both runs have a held-out loss.
std::optional<std::pair<HeldOutLine, HeldOutLine>> last_common(const RunLog& run,
                                                               const RunLog& other) {
  std::map<int64_t, HeldOutLine> theirs;
  for (const HeldOutLine& line : other.held_out) theirs[line.step] = line;
  for (auto line = run.held_out.rbegin(); line != run.held_out.rend(); ++line) {
    const auto found = theirs.find(line->step);
    if (found != theirs.end()) return std::pair{*line, found->second};
  }
  return std::nullopt;
}

void add_comparison(Report& report, const RunLog& run, const RunLog& other) {
  Table table{"comparison",
              fmt::format("Beside {}", other.directory.string()),
              {"", "this run", name_of(other), "difference"},
              {}};
  const auto row = [&](std::string name, double ours, double theirs) {
    table.rows.push_back({std::move(name), ours, theirs, ours - theirs});
  };
  if (const auto common = last_common(run, other)) {
    const auto& [ours, theirs] = *common;
    row(fmt::format("held-out loss at step {}, nats", ours.step), ours.loss, theirs.loss);
    report.facts.insert(report.facts.begin(),
                        {"held_out_difference", ours.loss - theirs.loss, "nats"});
  } else {
    report.warnings.push_back("the two runs have no held-out loss at the same step");
  }
  row("best held-out loss, nats", best_held_out(run), best_held_out(other));
  row("training loss, mean of the last 50 steps, nats", last_loss(run), last_loss(other));
  row("steps", static_cast<double>(last_step(run)), static_cast<double>(last_step(other)));
  row("skipped steps", static_cast<double>(num_skipped(run)),
      static_cast<double>(num_skipped(other)));
  row("median speed, tok/s", median_speed(run), median_speed(other));
  report.tables.push_back(std::move(table));
}

double at(const std::vector<double>& values, size_t layer) {
  return layer < values.size() ? values[layer] : kNone;
}

// Empty where there is no number: the last layer has no next one.
Value cell(double value) { return std::isfinite(value) ? Value(value) : Value(std::string()); }

void add_layers(Report& report, const RunLog& run) {
  if (run.routing.empty()) return;
  const RoutingLine& now = run.routing.back();
  Table table{"layers",
              fmt::format("Routers at step {}", now.step),
              {"MoE layer", "MaxVio", "foreign share", "entropy, nats", "margin",
               "trajectory / spread", "reuse with next", "by chance"},
              {}};
  for (size_t layer = 0; layer < now.entropy.size(); ++layer) {
    std::vector<Value>& row = table.rows.emplace_back();
    row.emplace_back(static_cast<int64_t>(layer));
    for (double value : {at(now.max_vio, layer), at(now.foreign, layer), at(now.entropy, layer),
                         at(now.margin, layer), at(now.bonus, layer) / at(now.spread, layer),
                         at(now.reuse, layer), at(now.reuse_chance, layer)})
      row.push_back(cell(value));
  }
  report.tables.push_back(std::move(table));
}

}  // namespace

const char* name_of(const RunLog& other) {
  return other.facts && other.facts->control ? "control" : "the other";
}

Report report_of(const RunLog& run, const RunLog* other) {
  Report report;
  report.verb = "train";
  report.title = "Training of " + run.directory.string();
  add_facts(report, run);
  if (other != nullptr) add_comparison(report, run, *other);
  add_layers(report, run);
  draw_progress(report, run, other);
  draw_pool(report, run);
  draw_workings(report, run, other);
  if (!run.facts)
    report.warnings.push_back("no run.json: pictures of loads need one, as runs write it now");
  return report;
}

Report report_run(const fs::path& run, const fs::path& compare) {
  const RunLog log = read_run(run);
  std::optional<RunLog> other;
  if (!compare.empty()) other = read_run(compare);
  Report report = report_of(log, other ? &*other : nullptr);
  report.facts.push_back({"page", (log.directory / "report.html").string(), ""});
  write_file_whole(log.directory / "report.html", to_html(report));
  write_file_whole(log.directory / "report.json", to_json(report));
  return report;
}

}  // namespace moue
