// Line charts on the SVG canvas.
#include "report/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace moue {

namespace {

constexpr double kWidth = 600;
constexpr double kLeft = 74, kRight = 16, kTop = 56, kPlot = 208,
                 kBottom = 81;  // the bottom holds ticks, label and a row of legend
constexpr double kLegendRow = 25;
constexpr size_t kMostSeries = 4;
constexpr size_t kMostMarkers = 40;  // more points than this get a marker at the end only
constexpr double kDot = 4;           // side of a point where there are many
constexpr double kPadding = 0.04;    // of the range, where an axis ends with its data

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();

  void take(double value) {
    if (!std::isfinite(value)) return;
    low = std::min(low, value);
    high = std::max(high, value);
  }
};

// An axis as pixels: where its values lie and where its ticks are.
class Scale {
 public:
  Scale(const Axis& axis, const std::vector<Series>& series, bool horizontal, double from,
        double to)
      : logarithmic_(axis.logarithmic), from_(from), to_(to) {
    Range range;
    for (const Series& s : series) {
      for (double value : horizontal ? s.x : s.y) range.take(place(value));
    }
    const double padding = horizontal ? 0 : kPadding * (range.high - range.low);
    range.low = axis.low ? place(*axis.low) : range.low - padding;
    range.high = axis.high ? place(*axis.high) : range.high + padding;
    if (!(range.low <= range.high) || !std::isfinite(range.low) || !std::isfinite(range.high))
      range = {0, 1};
    if (range.low == range.high) range = {range.low - 0.5, range.high + 0.5};
    low_ = range.low;
    high_ = range.high;
  }

  /// Not finite where the value has no place.
  double at(double value) const {
    return from_ + (place(value) - low_) / (high_ - low_) * (to_ - from_);
  }
  std::vector<double> ticks(int count) const {
    return logarithmic_ ? power_ticks(std::pow(10, low_), std::pow(10, high_))
                        : round_ticks(low_, high_, count);
  }
  bool covers(double value) const { return place(value) >= low_ && place(value) <= high_; }

 private:
  double place(double value) const {
    if (!logarithmic_) return value;
    return value > 0 ? std::log10(value) : std::numeric_limits<double>::quiet_NaN();
  }
  bool logarithmic_;
  double from_, to_, low_ = 0, high_ = 1;
};

// Finite points of a series, in pixels, in runs between what is not finite.
struct Piece {
  std::vector<double> x, y;
};

std::vector<Piece> pieces_of(const Series& series, const Scale& x, const Scale& y) {
  std::vector<Piece> pieces(1);
  for (size_t i = 0; i < std::min(series.x.size(), series.y.size()); ++i) {
    const double at_x = x.at(series.x[i]), at_y = y.at(series.y[i]);
    if (std::isfinite(at_x) && std::isfinite(at_y)) {
      pieces.back().x.push_back(at_x);
      pieces.back().y.push_back(at_y);
    } else if (!pieces.back().x.empty()) {
      pieces.emplace_back();
    }
  }
  return pieces;
}

void draw_points(Svg& svg, const std::vector<Piece>& pieces, Ink ink) {
  size_t count = 0;
  for (const Piece& piece : pieces) count += piece.x.size();
  for (const Piece& piece : pieces) {
    if (count > kMostMarkers) {
      svg.dots(piece.x, piece.y, std::vector<double>(piece.x.size(), kDot), ink);
      continue;
    }
    for (size_t i = 0; i < piece.x.size(); ++i) svg.marker(piece.x[i], piece.y[i], ink);
  }
}

void draw_lines(Svg& svg, const std::vector<Piece>& pieces, bool all_markers, Ink ink) {
  for (size_t p = 0; p < pieces.size(); ++p) {
    const auto& [x, y] = pieces[p];
    if (x.size() > 1) svg.polyline(x, y, ink);
    const bool is_last = p + 1 == pieces.size();
    for (size_t i = 0; i < x.size(); ++i) {
      if (all_markers || x.size() == 1 || (is_last && i + 1 == x.size()))
        svg.marker(x[i], y[i], ink);
    }
  }
}

// Two entries a row: words grow on small screens.
void draw_legend(Svg& svg, const std::vector<Series>& series, double height) {
  for (size_t i = 0; i < series.size(); ++i) {
    const Ink ink = static_cast<Ink>(static_cast<size_t>(Ink::Series0) + i);
    const double x = i % 2 == 0 ? 12 : kWidth / 2,
                 y = height - 12 - (series.size() > 2 && i < 2 ? kLegendRow : 0);
    if (!series[i].points) svg.polyline({x, x + 36}, {y - 4, y - 4}, ink);
    svg.marker(x + 18, y - 4, ink);
    svg.text(x + 42, y, series[i].name);
  }
}

// From the right: where names would meet, what begins later has its name.
void draw_marks(Svg& svg, std::vector<Mark> marks, const Scale& x, double bottom) {
  double free_until = kWidth;
  std::sort(marks.begin(), marks.end(), [](const Mark& a, const Mark& b) { return a.x > b.x; });
  for (const Mark& mark : marks) {
    if (!x.covers(mark.x)) continue;
    const double at = x.at(mark.x), width = 8.5 * static_cast<double>(mark.name.size());
    svg.line(at, kTop, at, bottom, Ink::Mark);
    const double begin = std::min(at, kWidth - width);
    if (begin + width > free_until) continue;  // its line tells enough
    svg.text(begin, kTop - 8, mark.name);
    free_until = begin - 8;
  }
}

}  // namespace

std::vector<double> round_ticks(double low, double high, int count) {
  const double raw = (high - low) / std::max(1, count);
  // Ticks nearer to each other than doubles can count would never reach the end.
  const double least = 1e-12 * std::max(std::abs(low), std::abs(high));
  if (!(raw > least) || !std::isfinite(raw)) return {low};
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

std::vector<double> power_ticks(double low, double high) {
  std::vector<double> ticks;
  const double first = std::floor(std::log10(low)), last = std::ceil(std::log10(high));
  if (!std::isfinite(first) || !std::isfinite(last)) return ticks;
  const double stride = std::max(1.0, std::ceil((last - first) / 8));
  for (double power = first; power <= last; power += stride) {
    for (double factor : {1.0, 2.0, 5.0}) {
      const double tick = factor * std::pow(10, power);
      const bool fits = tick >= low * (1 - 1e-9) && tick <= high * (1 + 1e-9);
      if (fits && (factor == 1 || last - first <= 3)) ticks.push_back(tick);
    }
  }
  return ticks;
}

Series thinned(const Series& series, size_t most) {
  const size_t size = std::min(series.x.size(), series.y.size());
  const size_t group = (size + most - 1) / std::max<size_t>(most, 1);
  if (group <= 1) return series;
  Series result{series.name, {}, {}, series.points};
  for (size_t begin = 0; begin < size; begin += group) {
    const size_t end = std::min(begin + group, size);
    double sum = 0, count = 0;
    for (size_t i = begin; i < end; ++i) {
      if (!std::isfinite(series.y[i])) continue;
      sum += series.y[i];
      ++count;
    }
    result.x.push_back(series.x[end - 1]);
    result.y.push_back(count > 0 ? sum / count : std::numeric_limits<double>::quiet_NaN());
  }
  return result;
}

std::string line_chart(std::string_view title, const Axis& x, const Axis& y,
                       const std::vector<Series>& all, const std::vector<Mark>& marks) {
  const std::vector<Series> series(all.begin(), all.begin() + std::min(all.size(), kMostSeries));
  const double right = kWidth - kRight, bottom = kTop + kPlot;
  const double height = bottom + kBottom + (series.size() > 2 ? kLegendRow : 0);
  const bool few = std::all_of(series.begin(), series.end(),
                               [](const Series& s) { return s.x.size() <= kMostMarkers; });
  const Scale horizontal(x, series, true, kLeft, right);
  const Scale vertical(y, series, false, bottom, kTop);
  Svg svg(kWidth, height, title, fmt::format("{} over {}", y.label, x.label));
  for (double tick : vertical.ticks(5)) {
    svg.line(kLeft, vertical.at(tick), right, vertical.at(tick), Ink::Grid);
    svg.text(kLeft - 8, vertical.at(tick) + 4, fmt::format("{:.6g}", tick), Anchor::End);
  }
  for (double tick : horizontal.ticks(6)) {
    svg.line(horizontal.at(tick), bottom, horizontal.at(tick), bottom + 5, Ink::Axis);
    svg.text(horizontal.at(tick), bottom + 20, fmt::format("{:.6g}", tick), Anchor::Middle);
  }
  svg.line(kLeft, bottom, right, bottom, Ink::Axis);
  svg.line(kLeft, kTop, kLeft, bottom, Ink::Axis);
  svg.text((kLeft + right) / 2, bottom + 41, x.label, Anchor::Middle);
  svg.text_upwards(16, (kTop + bottom) / 2, y.label);
  draw_marks(svg, marks, horizontal, bottom);
  for (size_t i = 0; i < series.size(); ++i) {
    const Ink ink = static_cast<Ink>(static_cast<size_t>(Ink::Series0) + i);
    const std::vector<Piece> pieces = pieces_of(series[i], horizontal, vertical);
    if (series[i].points) {
      draw_points(svg, pieces, ink);
    } else {
      draw_lines(svg, pieces, few, ink);
    }
  }
  draw_legend(svg, series, height);
  return svg.finish();
}

}  // namespace moue
