// The picture of a plan: layers by experts, who sees whom; below it, how many layers share each
// expert.
#include "moue/plan.h"
#include "report/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace moue {

namespace {

constexpr double kLeft = 60, kTop = 64, kRight = 24, kWide = 1040;
constexpr double kBars = 60;              // height of the sharing bars
constexpr int64_t kMostRows = 160;        // more layers than this: every n-th is drawn
constexpr size_t kMostRectangles = 6000;  // more runs than this: a cell is a whole home layer

// Neighbouring experts that a layer sees and that are all its own, or all foreign.
struct Run {
  int64_t first = 0;
  int64_t last = 0;
  bool is_own = false;
};

std::vector<Run> runs_of(const Pool& pool, int64_t layer) {
  std::vector<int32_t> seen = pool.slots[layer];
  std::sort(seen.begin(), seen.end());
  std::vector<Run> runs;
  for (int32_t p : seen) {
    const bool own = pool.is_own(layer, p);
    if (!runs.empty() && runs.back().last + 1 == p && runs.back().is_own == own) {
      runs.back().last = p;
    } else {
      runs.push_back({p, p, own});
    }
  }
  return runs;
}

struct Layout {
  int64_t rows = 0;      // layers drawn
  int64_t step = 1;      // every step-th layer
  double row = 0;        // height of a row
  double expert = 0;     // width of an expert
  bool by_home = false;  // a cell is a home layer, as high as the share of it that is seen
};

// New experts stand behind the source's in cells of the same width.
int64_t num_cells(const Pool& pool) {
  return (pool.num_physical() + pool.experts_per_layer - 1) / pool.experts_per_layer;
}

std::string cell_name(const Pool& pool, int64_t cell) {
  return cell < pool.num_moe_layers() ? fmt::format("experts of layer {}", cell)
                                      : std::string("new experts");
}

Layout layout_of(const Pool& pool) {
  Layout layout;
  const int64_t layers = pool.num_moe_layers();
  layout.step = (layers + kMostRows - 1) / kMostRows;
  layout.rows = (layers + layout.step - 1) / layout.step;
  layout.row = std::clamp(480.0 / static_cast<double>(layout.rows), 6.0, 28.0);
  layout.expert = std::min(28.0, kWide / static_cast<double>(pool.num_physical()));
  size_t rectangles = 0;
  for (int64_t layer = 0; layer < layers && rectangles <= kMostRectangles; layer += layout.step) {
    rectangles += runs_of(pool, layer).size();
  }
  layout.by_home = rectangles > kMostRectangles;
  return layout;
}

double at(const Layout& layout, int64_t expert) {
  return kLeft + layout.expert * static_cast<double>(expert);
}

void draw_runs(Svg& svg, const Pool& pool, const Layout& layout, int64_t layer, double y) {
  for (const Run& run : runs_of(pool, layer)) {
    const double width = layout.expert * static_cast<double>(run.last - run.first + 1);
    const double inset = std::min(0.75, width / 4);  // an outline is drawn inside its cell
    svg.rectangle(at(layout, run.first) + inset, y + 1.5, width - 2 * inset, layout.row - 3,
                  run.is_own ? Ink::Solid : Ink::Hollow,
                  fmt::format("layer {}: {} experts {} to {}", layer,
                              run.is_own ? "own" : "foreign", run.first, run.last));
  }
}

void draw_shares(Svg& svg, const Pool& pool, const Layout& layout, int64_t layer, double y) {
  const int64_t experts = pool.experts_per_layer;
  std::vector<int64_t> seen(num_cells(pool));
  for (int32_t p : pool.slots[layer]) ++seen[p / experts];
  for (int64_t cell = 0; cell < num_cells(pool); ++cell) {
    if (seen[cell] == 0) continue;
    const int64_t all = std::min(experts, pool.num_physical() - cell * experts);
    const double share = static_cast<double>(seen[cell]) / static_cast<double>(all);
    const double height = std::max(1.0, (layout.row - 2) * share);
    svg.rectangle(
        at(layout, cell * experts), y + layout.row - 1 - height,
        layout.expert * static_cast<double>(all), height, cell == layer ? Ink::Solid : Ink::Hollow,
        fmt::format("layer {} sees {} of {} {}", layer, seen[cell], all, cell_name(pool, cell)));
  }
}

void draw_rows(Svg& svg, const Pool& pool, const Layout& layout) {
  const int64_t label_step = static_cast<int64_t>(std::ceil(13 / layout.row));
  for (int64_t row = 0; row < layout.rows; ++row) {
    const int64_t layer = row * layout.step;
    const double y = kTop + layout.row * static_cast<double>(row);
    if (layout.by_home) {
      draw_shares(svg, pool, layout, layer, y);
    } else {
      draw_runs(svg, pool, layout, layer, y);
    }
    if (row % label_step == 0)
      svg.text(kLeft - 8, y + layout.row / 2 + 4, std::to_string(layer), Anchor::End);
  }
}

// Lines between home layers, where there is room for them, and their numbers.
void draw_grid(Svg& svg, const Pool& pool, const Layout& layout, double bottom) {
  const int64_t layers = pool.num_moe_layers(), experts = pool.experts_per_layer;
  const double home = layout.expert * static_cast<double>(experts);
  const auto step = static_cast<int64_t>(std::ceil(24 / home));
  for (int64_t layer = 0; layer <= layers; ++layer) {
    const double x = at(layout, layer * experts);
    if (home >= 4 || layer % step == 0 || layer == layers) svg.line(x, kTop, x, bottom, Ink::Grid);
    if (layer < layers && layer % step == 0)
      svg.text(x + home / 2, bottom + 16, std::to_string(layer), Anchor::Middle);
  }
  if (pool.num_new() > 0) svg.text(at(layout, layers * experts) + 4, bottom + 16, "new");
}

// How many layers list each expert; per home layer the mean where experts are thinner than a pixel.
void draw_sharing(Svg& svg, const Pool& pool, const Layout& layout, double top) {
  const std::vector<int64_t> c = sharing(pool.slots, pool.num_physical());
  const int64_t bin = layout.expert >= 1.5 ? 1 : pool.experts_per_layer;
  const auto most = static_cast<double>(*std::max_element(c.begin(), c.end()));
  for (int64_t p = 0; p < pool.num_physical(); p += bin) {
    const int64_t end = std::min(p + bin, pool.num_physical());
    double mean = 0;
    for (int64_t q = p; q < end; ++q)
      mean += static_cast<double>(c[q]) / static_cast<double>(end - p);
    const double height = kBars * mean / most;
    svg.rectangle(at(layout, p) + 0.1 * layout.expert, top + kBars - height,
                  0.8 * layout.expert * static_cast<double>(end - p), height, Ink::Solid);
  }
  svg.line(kLeft, top + kBars, at(layout, pool.num_physical()), top + kBars, Ink::Axis);
  svg.text(kLeft - 8, top + 10, fmt::format("{:.0f}", most), Anchor::End);
  svg.text(kLeft - 8, top + kBars, "0", Anchor::End);
}

}  // namespace

std::string picture_of(const Plan& plan) {
  const Pool& pool = plan.pool;
  const Layout layout = layout_of(pool);
  const double bottom = kTop + layout.row * static_cast<double>(layout.rows), bars = bottom + 56;
  const double right = std::max(at(layout, pool.num_physical()) + kRight, 560.0);
  Svg svg(right, bars + kBars + 34,
          fmt::format("{}: {} layers of {} experts, who sees whom", pool.topology.name,
                      pool.num_moe_layers(), pool.experts_per_layer),
          "rows are MoE layers, columns are physical experts; filled cells are a layer's own "
          "experts, outlined cells foreign ones");
  svg.rectangle(kLeft, 36, 14, 12, Ink::Solid);
  svg.text(kLeft + 20, 46, "own experts");
  svg.rectangle(kLeft + 120, 36, 14, 12, Ink::Hollow);
  svg.text(kLeft + 140, 46,
           layout.by_home ? "foreign, as high as the share seen" : "foreign experts");
  if (layout.step > 1)
    svg.text(kLeft + 380, 46, fmt::format("every {}th layer is drawn", layout.step));
  draw_grid(svg, pool, layout, bottom);
  draw_rows(svg, pool, layout);
  svg.text(kLeft, bottom + 34, "experts, by the MoE layer they come from");
  svg.text_upwards(16, (kTop + bottom) / 2, "MoE layer");
  draw_sharing(svg, pool, layout, bars);
  svg.text(kLeft, bars + kBars + 20, "layers that list an expert");
  return svg.finish();
}

}  // namespace moue
