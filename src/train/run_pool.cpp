// The pictures of a pool: who carries the load before and after, who uses whom, exposure and load.
#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "report/svg.h"
#include "train/run_report.h"

namespace moue {
namespace {

constexpr size_t kMostColumns = 180;  // more slots than this: a square is the mean of several

using Rows = std::vector<std::vector<double>>;

double sum(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

// Shares of each layer's choices.
Rows shares(const LoadLine& load) {
  Rows rows = load.chosen;
  for (std::vector<double>& row : rows) {
    const double all = sum(row);
    if (all > 0) std::for_each(row.begin(), row.end(), [&](double& value) { value /= all; });
  }
  return rows;
}

// Means of `group` neighbours, own and foreign slots apart.
std::vector<double> grouped(const std::vector<double>& row, size_t own, size_t group) {
  std::vector<double> result;
  for (const auto& [from, to] : {std::pair{size_t{0}, own}, std::pair{own, row.size()}}) {
    for (size_t begin = from; begin < to; begin += group) {
      const size_t end = std::min(begin + group, to);
      const double all = std::accumulate(row.begin() + static_cast<std::ptrdiff_t>(begin),
                                         row.begin() + static_cast<std::ptrdiff_t>(end), 0.0);
      result.push_back(all / static_cast<double>(end - begin));
    }
  }
  return result;
}

Table table_of(std::string key, std::string title, const char* column, const Rows& rows) {
  Table table{std::move(key), std::move(title), {"MoE layer"}, {}, true};
  size_t columns = 0;
  for (const std::vector<double>& row : rows) columns = std::max(columns, row.size());
  for (size_t c = 0; c < columns; ++c) table.columns.push_back(fmt::format("{} {}", column, c));
  for (size_t r = 0; r < rows.size(); ++r) {
    std::vector<Value>& cells = table.rows.emplace_back();
    cells.emplace_back(static_cast<int64_t>(r));
    cells.insert(cells.end(), rows[r].begin(), rows[r].end());
  }
  return table;
}

class PoolPictures {
 public:
  PoolPictures(Report& report, const RunLog& run)
      : report_(report),
        facts_(*run.facts),
        before_(*run.first_load),
        after_(*run.last_load),
        own_(static_cast<size_t>(facts_.experts_per_layer)) {
    for (const std::vector<int32_t>& row : facts_.slots) columns_ = std::max(columns_, row.size());
  }

  bool is_shared() const { return columns_ > own_; }

  // Both on the scale of the busier one.
  void draw_loads() {
    double most = 0;
    for (const LoadLine* load : {&before_, &after_}) {
      for (const std::vector<double>& row : shares(*load))
        most = std::max(most, *std::max_element(row.begin(), row.end()));
    }
    draw_load("load_before", "Load before", before_, most);
    if (after_.step > before_.step) draw_load("load_after", "Load after", after_, most);
  }

  // Rows: layers that choose; columns: layers the experts come from.
  void draw_uses() {
    const size_t layers = facts_.slots.size(), source = layers * own_;
    const bool has_new = static_cast<size_t>(facts_.num_physical) > source;
    Rows uses(layers, std::vector<double>(layers + has_new, 0.0));
    const Rows share = shares(after_);
    for (size_t layer = 0; layer < layers; ++layer) {
      for (size_t slot = 0; slot < share[layer].size(); ++slot) {
        const auto p = static_cast<size_t>(facts_.slots[layer][slot]);
        uses[layer][p < source ? p / own_ : layers] += share[layer][slot];
      }
    }
    const char* from =
        has_new ? "layer the expert is from (last: new ones)" : "layer the expert is from";
    report_.pictures.push_back(
        {fmt::format("Step {}: of the choices of a layer (row), the share that falls on experts of "
                     "another (column). The diagonal is a layer's own.",
                     after_.step),
         square_chart("Who uses whom", from, "layer that chooses", uses, "share", 1.0)});
    report_.tables.push_back(
        table_of("uses", fmt::format("Who uses whom, step {}", after_.step), "from", uses));
  }

  void draw_exposure() {
    const auto layers = static_cast<double>(facts_.slots.size());
    const std::vector<double> load = pool_shares(shares(after_), facts_.slots, facts_.num_physical);
    Series experts{"an expert", {}, {}, true};
    Table table{"exposure",
                fmt::format("Exposure and load, step {}", after_.step),
                {"expert", "exposure", "load"},
                {},
                true};
    double most = 0;
    for (size_t p = 0; p < load.size(); ++p) {
      experts.x.push_back(after_.exposure[p]);
      experts.y.push_back(load[p] * layers);
      most = std::max({most, after_.exposure[p]});
      table.rows.push_back({static_cast<int64_t>(p), after_.exposure[p], load[p] * layers});
    }
    report_.pictures.push_back(
        {fmt::format("Step {}: layer visits an expert gets for each token and choice, against what "
                     "it would get if routers chose evenly. On the line, load follows exposure.",
                     after_.step),
         line_chart("Exposure against load", {"exposure, layer visits", 0, {}},
                    {"load, layer visits", 0, {}},
                    {experts, {"load = exposure", {0, most}, {0, most}}})});
    report_.tables.push_back(std::move(table));
  }

 private:
  void draw_load(const char* key, const char* name, const LoadLine& load, double most) {
    const size_t group = (columns_ + kMostColumns - 1) / kMostColumns;
    Rows rows = shares(load);
    report_.tables.push_back(table_of(
        key, fmt::format("{}, step {}: shares of choices", name, load.step), "slot", rows));
    for (std::vector<double>& row : rows) row = grouped(row, own_, group);
    const std::string column = group > 1 ? fmt::format("slots, {} a square", group) : "slot";
    report_.pictures.push_back(
        {fmt::format("Share of a layer's choices that fall on each of its slots; left of the line "
                     "its own {} experts, right of it foreign ones.",
                     own_),
         square_chart(fmt::format("{}: step {}", name, load.step), column, "MoE layer", rows,
                      "share", most, (own_ + group - 1) / group)});
  }

  Report& report_;
  const RunFacts& facts_;
  const LoadLine &before_, &after_;
  size_t own_, columns_ = 0;
};

}  // namespace

void draw_pool(Report& report, const RunLog& run) {
  if (!run.facts || !run.first_load || !run.last_load) return;
  PoolPictures pictures(report, run);
  if (pictures.is_shared()) {
    pictures.draw_uses();
    pictures.draw_exposure();
  }
  pictures.draw_loads();
}

}  // namespace moue
