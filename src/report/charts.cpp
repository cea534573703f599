// Line charts and square charts on the SVG canvas.
#include "report/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace moue {

namespace {

constexpr double kWidth = 760, kHeight = 380;
constexpr double kLeft = 70, kRight = 20, kTop = 40,
                 kBottom = 80;  // the bottom holds ticks, label and legend
constexpr size_t kMostSeries = 4;
constexpr size_t kMostMarkers = 40;  // more points than this get a marker at the end only

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();

  void take(double value) {
    if (!std::isfinite(value)) return;
    low = std::min(low, value);
    high = std::max(high, value);
  }
};

// The data's range, or the axis's own where set; never empty.
Range range_of(const Axis& axis, const std::vector<Series>& series, bool horizontal) {
  Range range;
  for (const Series& s : series) {
    for (double value : horizontal ? s.x : s.y) range.take(value);
  }
  range.low = axis.low.value_or(range.low);
  range.high = axis.high.value_or(range.high);
  if (!(range.low <= range.high) || !std::isfinite(range.low) || !std::isfinite(range.high))
    return {0, 1};
  if (range.low == range.high) return {range.low - 0.5, range.high + 0.5};
  return range;
}

// Pieces of a series between what is not finite, in pixels.
template <class AtX, class AtY>
void draw_series(Svg& svg, const Series& series, Ink ink, AtX at_x, AtY at_y) {
  std::vector<double> x, y;
  const auto flush = [&](bool is_last) {
    if (x.size() > 1) svg.polyline(x, y, ink);
    const bool all = series.x.size() <= kMostMarkers;
    for (size_t i = 0; i < x.size(); ++i) {
      if (all || x.size() == 1 || (is_last && i + 1 == x.size())) svg.marker(x[i], y[i], ink);
    }
    x.clear();
    y.clear();
  };
  for (size_t i = 0; i < std::min(series.x.size(), series.y.size()); ++i) {
    if (std::isfinite(series.x[i]) && std::isfinite(series.y[i])) {
      x.push_back(at_x(series.x[i]));
      y.push_back(at_y(series.y[i]));
    } else {
      flush(false);
    }
  }
  flush(true);
}

void draw_legend(Svg& svg, const std::vector<Series>& series) {
  double x = kLeft;
  for (size_t i = 0; i < series.size(); ++i) {
    const Ink ink = static_cast<Ink>(static_cast<size_t>(Ink::Series0) + i);
    const double y = kHeight - 14;
    svg.polyline({x, x + 36}, {y - 4, y - 4}, ink);
    svg.marker(x + 18, y - 4, ink);
    svg.text(x + 42, y, series[i].name);
    x += 64 + 7.0 * static_cast<double>(series[i].name.size());
  }
}

}  // namespace

std::vector<double> round_ticks(double low, double high, int count) {
  const double raw = (high - low) / std::max(1, count);
  if (!(raw > 0) || !std::isfinite(raw)) return {low};
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  double step = power;
  for (double factor : {1.0, 2.0, 2.5, 5.0, 10.0}) {
    step = factor * power;
    if (step >= raw * (1 - 1e-9)) break;
  }
  std::vector<double> ticks;
  for (double at = std::ceil(low / step - 1e-9); at * step <= high + 1e-9 * step; ++at)
    ticks.push_back(at * step + 0.0);
  return ticks;
}

std::string line_chart(std::string_view title, const Axis& x, const Axis& y,
                       const std::vector<Series>& all) {
  const std::vector<Series> series(all.begin(), all.begin() + std::min(all.size(), kMostSeries));
  const Range rx = range_of(x, series, true), ry = range_of(y, series, false);
  const double right = kWidth - kRight, bottom = kHeight - kBottom;
  const auto at_x = [&](double v) {
    return kLeft + (v - rx.low) / (rx.high - rx.low) * (right - kLeft);
  };
  const auto at_y = [&](double v) {
    return bottom - (v - ry.low) / (ry.high - ry.low) * (bottom - kTop);
  };
  Svg svg(kWidth, kHeight, title, fmt::format("{} over {}", y.label, x.label));
  for (double tick : round_ticks(ry.low, ry.high, 6)) {
    svg.line(kLeft, at_y(tick), right, at_y(tick), Ink::Grid);
    svg.text(kLeft - 8, at_y(tick) + 4, fmt::format("{:.6g}", tick), Anchor::End);
  }
  for (double tick : round_ticks(rx.low, rx.high, 8)) {
    svg.line(at_x(tick), bottom, at_x(tick), bottom + 5, Ink::Axis);
    svg.text(at_x(tick), bottom + 19, fmt::format("{:.6g}", tick), Anchor::Middle);
  }
  svg.line(kLeft, bottom, right, bottom, Ink::Axis);
  svg.line(kLeft, kTop, kLeft, bottom, Ink::Axis);
  svg.text((kLeft + right) / 2, bottom + 37, x.label, Anchor::Middle);
  svg.text_upwards(18, (kTop + bottom) / 2, y.label);
  for (size_t i = 0; i < series.size(); ++i) {
    draw_series(svg, series[i], static_cast<Ink>(static_cast<size_t>(Ink::Series0) + i), at_x,
                at_y);
  }
  draw_legend(svg, series);
  return svg.finish();
}

std::string square_chart(std::string_view title, std::string_view column_label,
                         std::string_view row_label, const std::vector<std::vector<double>>& rows,
                         std::string_view hint, std::optional<double> most) {
  size_t columns = 1;
  double largest = 0;
  for (const std::vector<double>& row : rows) {
    columns = std::max(columns, row.size());
    for (double value : row) {
      if (std::isfinite(value)) largest = std::max(largest, value);
    }
  }
  const double scale = most.value_or(largest) > 0 ? most.value_or(largest) : 1;
  const double cell = std::clamp(900.0 / static_cast<double>(columns), 5.0, 26.0);
  const double width = std::max(420.0, kLeft + kRight + cell * static_cast<double>(columns));
  const double bottom = kTop + cell * static_cast<double>(rows.size());
  Svg svg(width, bottom + 62, title,
          fmt::format("{} of {} by {}; the area is the value", hint, row_label, column_label));
  svg.rectangle(kLeft, kTop, cell * static_cast<double>(columns), bottom - kTop, Ink::Frame);
  for (size_t r = 0; r < rows.size(); ++r) {
    for (size_t c = 0; c < rows[r].size(); ++c) {
      const double value = rows[r][c];
      if (!(value > 0) || !std::isfinite(value)) continue;
      const double side = cell * 0.92 * std::sqrt(std::min(1.0, value / scale));
      svg.rectangle(
          kLeft + (static_cast<double>(c) + 0.5) * cell - side / 2,
          kTop + (static_cast<double>(r) + 0.5) * cell - side / 2, side, side, Ink::Solid,
          fmt::format("{} {}, {} {}: {} {:.4g}", row_label, r, column_label, c, hint, value));
    }
  }
  const size_t row_step = 1 + static_cast<size_t>(13 / cell),
               column_step = 1 + static_cast<size_t>(22 / cell);
  for (size_t r = 0; r < rows.size(); r += row_step) {
    svg.text(kLeft - 8, kTop + (static_cast<double>(r) + 0.5) * cell + 4, fmt::format("{}", r),
             Anchor::End);
  }
  for (size_t c = 0; c < columns; c += column_step) {
    svg.text(kLeft + (static_cast<double>(c) + 0.5) * cell, bottom + 16, fmt::format("{}", c),
             Anchor::Middle);
  }
  svg.text(kLeft, bottom + 34, column_label);
  svg.text(kLeft, bottom + 52, fmt::format("a full square is {} {:.4g}", hint, scale));
  svg.text_upwards(18, (kTop + bottom) / 2, row_label);
  return svg.finish();
}

}  // namespace moue
