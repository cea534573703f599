// Tables of numbers as squares on the SVG canvas.
#include "report/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace moue {

namespace {

constexpr double kLeft = 70, kRight = 20, kTop = 40, kBottom = 66;
constexpr double kWide = 900;        // all columns together, where they are many
constexpr double kNarrow = 340;      // where they, and the rows, are few
constexpr double kLetter = 18;       // height of a number on small screens
constexpr size_t kMostHints = 1500;  // more squares than this are one element without hints

using Table = std::vector<std::vector<double>>;

struct Grid {
  size_t columns = 1;
  double scale = 1;  // the value of a full square
  double cell = 26;

  double x(size_t column) const { return kLeft + (static_cast<double>(column) + 0.5) * cell; }
  double y(size_t row) const { return kTop + (static_cast<double>(row) + 0.5) * cell; }
  double side(double value) const { return cell * 0.92 * std::sqrt(std::min(1.0, value / scale)); }
};

bool is_drawn(double value) { return value > 0 && std::isfinite(value); }

Grid grid_of(const Table& rows, std::optional<double> most) {
  Grid grid;
  double largest = 0;
  for (const std::vector<double>& row : rows) {
    grid.columns = std::max(grid.columns, row.size());
    for (double value : row) {
      if (std::isfinite(value)) largest = std::max(largest, value);
    }
  }
  if (most.value_or(largest) > 0) grid.scale = most.value_or(largest);
  const auto columns = static_cast<double>(grid.columns);
  const double few = std::max(columns, static_cast<double>(rows.size()));
  grid.cell = std::max(std::clamp(kWide / columns, 5.0, 26.0), std::min(kNarrow / few, 48.0));
  return grid;
}

size_t num_drawn(const Table& rows) {
  size_t count = 0;
  for (const std::vector<double>& row : rows)
    count += static_cast<size_t>(std::count_if(row.begin(), row.end(), is_drawn));
  return count;
}

void draw_together(Svg& svg, const Table& rows, const Grid& grid) {
  std::vector<double> x, y, side;
  for (size_t r = 0; r < rows.size(); ++r) {
    for (size_t c = 0; c < rows[r].size(); ++c) {
      if (!is_drawn(rows[r][c])) continue;
      x.push_back(grid.x(c));
      y.push_back(grid.y(r));
      side.push_back(grid.side(rows[r][c]));
    }
  }
  svg.dots(x, y, side, Ink::Solid);
}

// `name`: "MoE layer {}, slot {}: load {}" of a square.
template <class Name>
void draw_each(Svg& svg, const Table& rows, const Grid& grid, Name name) {
  for (size_t r = 0; r < rows.size(); ++r) {
    for (size_t c = 0; c < rows[r].size(); ++c) {
      const double value = rows[r][c], side = grid.side(std::max(0.0, value));
      if (!is_drawn(value)) continue;
      svg.rectangle(grid.x(c) - side / 2, grid.y(r) - side / 2, side, side, Ink::Solid,
                    name(r, c, value));
    }
  }
}

void draw_numbers(Svg& svg, size_t rows, const Grid& grid, double bottom) {
  const size_t row_step = 1 + static_cast<size_t>(kLetter / grid.cell * 0.999),
               column_step = 1 + static_cast<size_t>(30 / grid.cell);
  for (size_t r = 0; r < rows; r += row_step)
    svg.text(kLeft - 8, grid.y(r) + 4, fmt::format("{}", r), Anchor::End);
  for (size_t c = 0; c < grid.columns; c += column_step)
    svg.text(grid.x(c), bottom + 17, fmt::format("{}", c), Anchor::Middle);
}

}  // namespace

std::string square_chart(std::string_view title, std::string_view column_label,
                         std::string_view row_label, const Table& rows, std::string_view hint,
                         std::optional<double> most, std::optional<size_t> split) {
  const Grid grid = grid_of(rows, most);
  const double columns = grid.cell * static_cast<double>(grid.columns);
  const double bottom = kTop + grid.cell * static_cast<double>(rows.size());
  Svg svg(std::max(420.0, kLeft + kRight + columns), bottom + kBottom, title,
          fmt::format("{} of {} by {}; the area is the value", hint, row_label, column_label));
  svg.rectangle(kLeft, kTop, columns, bottom - kTop, Ink::Frame);
  if (split) {
    const double x = kLeft + grid.cell * static_cast<double>(*split);
    svg.line(x, kTop, x, bottom, Ink::Mark);
  }
  if (num_drawn(rows) > kMostHints) {
    draw_together(svg, rows, grid);
  } else {
    draw_each(svg, rows, grid, [&](size_t r, size_t c, double value) {
      return fmt::format("{} {}, {} {}: {} {:.4g}", row_label, r, column_label, c, hint, value);
    });
  }
  draw_numbers(svg, rows.size(), grid, bottom);
  svg.text(kLeft, bottom + 36, column_label);
  svg.text(kLeft, bottom + 56, fmt::format("a full square is {} {:.4g}", hint, grid.scale));
  svg.text_upwards(18, (kTop + bottom) / 2, row_label);
  return svg.finish();
}

}  // namespace moue
