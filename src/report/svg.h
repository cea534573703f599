// Pictures for reports: an SVG canvas in the house's light and dark colours, and the charts verbs
// share. Nothing is told by colour alone: series differ by dash and marker, quantities by
// size.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace moue {

/// What a shape stands for; its colours follow the reader's light or dark scheme.
enum class Ink : uint8_t {
  Solid,    ///< filled
  Hollow,   ///< outlined, faintly filled
  Frame,    ///< a thin outline, no filling
  Grid,     ///< faint line
  Axis,     ///< line of the text's colour
  Mark,     ///< dotted line
  Series0,  ///< lines and filled markers of a chart, each with its own colour and dash
  Series1,
  Series2,
  Series3,
};

enum class Anchor : uint8_t { Start, Middle, End };

/// A drawing in units of CSS pixels, the origin at the top left.
class Svg {
 public:
  /// The title is drawn on top and, with `description`, read aloud.
  Svg(double width, double height, std::string_view title, std::string_view description);
  void rectangle(double x, double y, double width, double height, Ink ink);
  /// A rectangle that shows `hint` when pointed at.
  void rectangle(double x, double y, double width, double height, Ink ink, std::string_view hint);
  void line(double x1, double y1, double x2, double y2, Ink ink);
  void polyline(const std::vector<double>& x, const std::vector<double>& y, Ink ink);
  void marker(double x, double y, Ink ink);  ///< circle, square, triangle or diamond, by series
  /// Squares of one side around many points, in one element.
  void dots(const std::vector<double>& x, const std::vector<double>& y,
            const std::vector<double>& side, Ink ink);
  void text(double x, double y, std::string_view text, Anchor anchor = Anchor::Start);
  void text_upwards(double x, double y, std::string_view text);  ///< centred, read from below
  /// The whole element, from "<svg" to "</svg>\n".
  std::string finish() const;

 private:
  std::string head_;
  std::string body_;
};

struct Axis {
  std::string label;               ///< "step", "loss, nats"
  std::optional<double> low = {};  ///< unset: from the data
  std::optional<double> high = {};
  bool logarithmic = false;  ///< what is not above 0 is a gap
};

struct Series {
  std::string name;
  std::vector<double> x;
  std::vector<double> y;  ///< as many as x; what is not finite is a gap
  bool points = false;    ///< markers without a line
};

/// A place on the horizontal axis where something begins.
struct Mark {
  double x = 0;
  std::string name;
};

/// At most four series over one pair of axes, with ticks, grid and legend.
std::string line_chart(std::string_view title, const Axis& x, const Axis& y,
                       const std::vector<Series>& series, const std::vector<Mark>& marks = {});

/// The same curve with at most `most` points, each the mean of its neighbours' finite values.
Series thinned(const Series& series, size_t most);

/// A table of numbers from 0 up as squares whose area is the value over the largest (or over
/// `most`); rows from the top, `hint` "load" names the value when pointed at. A line stands before
/// column `split`.
std::string square_chart(std::string_view title, std::string_view column_label,
                         std::string_view row_label, const std::vector<std::vector<double>>& rows,
                         std::string_view hint, std::optional<double> most = {},
                         std::optional<size_t> split = {});

/// At most `count` + 1 round numbers that cover low to high, in rising order.
std::vector<double> round_ticks(double low, double high, int count);

/// 1, 2 and 5 times powers of ten between low and high, both above 0; powers alone where they are
/// many.
std::vector<double> power_ticks(double low, double high);

}  // namespace moue
