// The pictures of a run over its steps.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "report/svg.h"
#include "train/run_report.h"

namespace moue {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
constexpr size_t kMostPoints = 300;  // of a curve: a page has a dozen and stays below a megabyte
constexpr size_t kMostSkips = 400;   // marked ones

// A curve of what `value` makes of each line.
template <class Line, class Value>
Series curve(const char* name, const std::vector<Line>& lines, Value value) {
  Series series{name, {}, {}};
  for (const Line& line : lines) {
    series.x.push_back(static_cast<double>(line.step));
    series.y.push_back(value(line));
  }
  return thinned(series, kMostPoints);
}

double mean(const std::vector<double>& values) {
  double sum = 0;
  for (double value : values) sum += value;
  return values.empty() ? kNone : sum / static_cast<double>(values.size());
}

double largest(const std::vector<double>& values) {
  return values.empty() ? kNone : *std::max_element(values.begin(), values.end());
}

// The trajectory's term of a layer's logits beside their spread.
std::vector<double> ratio(const RoutingLine& line) {
  std::vector<double> ratio;
  for (size_t layer = 0; layer < std::min(line.bonus.size(), line.spread.size()); ++layer)
    ratio.push_back(line.bonus[layer] / line.spread[layer]);
  return ratio;
}

bool is_drawn(const Series& series) {
  return std::any_of(series.y.begin(), series.y.end(), [](double y) { return std::isfinite(y); });
}

// The numbers of a picture: one row a point.
Table table_of(const std::string& key, const std::string& title, const Axis& y,
               const std::vector<Series>& series) {
  Table table{key, fmt::format("{}: {}", title, y.label), {"curve", "step", "value"}, {}, true};
  for (const Series& s : series) {
    for (size_t i = 0; i < s.x.size(); ++i)
      table.rows.push_back({s.name, static_cast<int64_t>(std::llround(s.x[i])), s.y[i]});
  }
  return table;
}

class Curves {
 public:
  Curves(Report& report, const RunLog& run) : report_(report) {
    if (!run.facts) return;
    for (const StagePlan& stage : run.facts->stages)
      marks_.push_back({static_cast<double>(stage.from), stage.name});
  }

  // Nothing where no curve has a point.
  void draw(const char* key, const char* title, const char* caption, const Axis& y,
            const std::vector<Series>& all) {
    std::vector<Series> series;
    std::copy_if(all.begin(), all.end(), std::back_inserter(series), is_drawn);
    if (series.empty()) return;
    report_.pictures.push_back({caption, line_chart(title, {"step", 0}, y, series, marks_)});
    report_.tables.push_back(table_of(key, title, y, series));
  }

 private:
  Report& report_;
  std::vector<Mark> marks_;
};

void draw_losses(Curves& curves, const RunLog& run, const RunLog* other) {
  const auto loss = [](const HeldOutLine& line) { return line.loss; };
  std::vector<Series> series = {curve("this run", run.held_out, loss)};
  if (other != nullptr) series.push_back(curve(name_of(*other), other->held_out, loss));
  series.push_back(curve("averaged weights", run.held_out,
                         [](const HeldOutLine& line) { return line.average; }));
  series.push_back(curve("with every slot open", run.held_out,
                         [](const HeldOutLine& line) { return line.all_open; }));
  curves.draw("held_out", "Held-out loss", "On text that is not trained on. Lower is better.",
              {"loss, nats per token"}, series);

  const auto mean = [](const StepLine& line) { return line.mean_loss; };
  series = {curve("this run", run.steps, mean)};
  if (other != nullptr) series.push_back(curve(name_of(*other), other->steps, mean));
  curves.draw("loss", "Training loss", "Mean of the last 50 steps that were not skipped.",
              {"loss, nats per token"}, series);
}

// Skipped steps: what is finite stands at its norm, the rest at the top.
void draw_norms(Curves& curves, const RunLog& run) {
  Series spikes{"skipped: a spike", {}, {}, true}, others{"skipped: not finite", {}, {}, true};
  double top = 1;
  for (const StepLine& line : run.steps) {
    if (std::isfinite(line.grad_norm)) top = std::max(top, line.grad_norm);
  }
  for (const StepLine& line : run.steps) {
    if (!line.skipped || spikes.x.size() + others.x.size() >= kMostSkips) continue;
    const bool finite = std::isfinite(line.grad_norm) && std::isfinite(line.loss);
    (finite ? spikes : others).x.push_back(static_cast<double>(line.step));
    (finite ? spikes : others).y.push_back(finite ? line.grad_norm : top);
  }
  const Series norm = curve("accepted steps", run.steps, [](const StepLine& line) {
    return line.skipped ? kNone : line.grad_norm;
  });
  Axis axis{"global norm"};
  axis.logarithmic = true;
  curves.draw(
      "gradient_norm", "Gradient norm",
      "Before clipping. A skipped step changes nothing; one without a finite norm stands at "
      "the top.",
      axis, {norm, spikes, others});
}

void draw_balance(Curves& curves, const RunLog& run) {
  curves.draw(
      "max_vio", "Load beyond the target (MaxVio)",
      "How far the busiest expert is above its share: 0 is even, 1 is twice as much. The "
      "pool's share goes by exposure.",
      {"largest load / target - 1", 0, {}},
      {curve("pool", run.steps, [](const StepLine& line) { return line.pool_max_vio; }),
       curve("worst layer", run.steps, [](const StepLine& line) { return line.worst_max_vio; })});
  curves.draw(
      "balance", "The two sums of the balance loss", "Both are 1 where the load meets its target.",
      {"sum"},
      {curve("pool", run.steps, [](const StepLine& line) { return line.balance_pool; }),
       curve("layers", run.steps, [](const StepLine& line) { return line.balance_layer; })});
}

// An ordinary model has no foreign slots.
bool is_shared(const RunLog& run) { return !run.facts || !run.facts->control; }

void draw_opening(Curves& curves, const RunLog& run) {
  curves.draw(
      "foreign", "Choices of foreign experts",
      "Share of all choices that fall on another layer's experts.", {"share of choices", 0, {}},
      {curve("all layers", run.steps, [](const StepLine& line) { return line.foreign_share; }),
       curve("most foreign layer", run.routing,
             [](const RoutingLine& line) { return largest(line.foreign); }),
       curve("held-out text", run.held_out,
             [](const HeldOutLine& line) { return line.foreign_share; })});
}

void draw_sharing(Curves& curves, const RunLog& run) {
  curves.draw(
      "reuse", "Experts kept from layer to layer",
      "Share of a token's experts that its next MoE layer chooses again, beside what two "
      "layers that drew by their loads would share.",
      {"share of choices", 0, {}},
      {curve("reuse", run.routing, [](const RoutingLine& line) { return mean(line.reuse); }),
       curve("by chance", run.routing,
             [](const RoutingLine& line) { return mean(line.reuse_chance); })});
  curves.draw("trajectory", "What the trajectory state says",
              "Mean size of its term of the logits over the logits' standard deviation: 0 is no "
              "say, 1 as much as all else.",
              {"bonus / spread of logits", 0, {}},
              {curve("mean of the layers", run.routing,
                     [](const RoutingLine& line) { return mean(ratio(line)); }),
               curve("strongest layer", run.routing,
                     [](const RoutingLine& line) { return largest(ratio(line)); })});
}

void draw_routers(Curves& curves, const RunLog& run) {
  curves.draw("entropy", "Entropy of the routers",
              "Of the shares of open slots; low where routers are sure.", {"entropy, nats", 0, {}},
              {curve("mean of the layers", run.routing,
                     [](const RoutingLine& line) { return mean(line.entropy); })});
  curves.draw("margin", "Margin of the choice",
              "By how much the last chosen slot beats the first that is not.",
              {"difference of selection keys", 0, {}},
              {curve("mean of the layers", run.routing,
                     [](const RoutingLine& line) { return mean(line.margin); })});
  curves.draw("experts", "Experts in use",
              "Distinct experts of a token over all its choices, and of a step over those exposed.",
              {"share", 0, 1},
              {curve("of a token's choices", run.routing,
                     [](const RoutingLine& line) { return line.distinct; }),
               curve("of the pool", run.routing,
                     [](const RoutingLine& line) { return line.utilisation; })});
}

void draw_speed(Curves& curves, const RunLog& run, const RunLog* other) {
  const auto speed = [](const StepLine& line) { return line.tokens_per_second; };
  std::vector<Series> series = {curve("this run", run.steps, speed)};
  if (other != nullptr) series.push_back(curve(name_of(*other), other->steps, speed));
  curves.draw("throughput", "Throughput", "Of single steps, without evaluation and saving.",
              {"tokens per second", 0, {}}, series);
  curves.draw("lr", "Learning rate", "Of tensors without a multiplier of their own.",
              {"learning rate", 0, {}},
              {curve("this run", run.steps, [](const StepLine& line) { return line.lr; })});
}

}  // namespace

void draw_progress(Report& report, const RunLog& run, const RunLog* other) {
  Curves curves(report, run);
  draw_losses(curves, run, other);
  if (is_shared(run)) draw_opening(curves, run);
}

void draw_workings(Report& report, const RunLog& run, const RunLog* other) {
  Curves curves(report, run);
  if (is_shared(run)) draw_sharing(curves, run);
  draw_balance(curves, run);
  draw_routers(curves, run);
  draw_norms(curves, run);
  draw_speed(curves, run, other);
}

}  // namespace moue
