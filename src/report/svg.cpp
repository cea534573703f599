// The SVG canvas: shapes by meaning, one stylesheet for light and dark.
#include "report/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace moue {

namespace {

constexpr std::string_view kStyle = R"(
.moue-svg { --ink: #1b1f24; --paper: #ffffff; --line: #d4d9e0; --a: #1f5fa8; --b: #b3440d; --c: #1c7a3e; --d: #7a2fa8; }
@media (prefers-color-scheme: dark) { .moue-svg { --ink: #e4e8ee; --paper: #14171c; --line: #363d49; --a: #7fb3f0;
  --b: #f0a36b; --c: #78cf95; --d: #cb9af0; } }
.moue-svg text { fill: #1b1f24; fill: var(--ink); font: 12px system-ui, sans-serif; }
.moue-svg .title { font-size: 15px; font-weight: 600; }
.moue-svg .paper { fill: #ffffff; fill: var(--paper); }
.moue-svg .solid { fill: #1f5fa8; fill: var(--a); }
.moue-svg .hollow { fill: #b3440d; fill: var(--b); fill-opacity: .18; stroke: #b3440d; stroke: var(--b); }
.moue-svg .frame { fill: none; stroke: #d4d9e0; stroke: var(--line); }
.moue-svg .grid { stroke: #d4d9e0; stroke: var(--line); }
.moue-svg .axis { stroke: #1b1f24; stroke: var(--ink); }
.moue-svg polyline { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
.moue-svg .s0 { stroke: #1f5fa8; stroke: var(--a); } .moue-svg .s1 { stroke: #b3440d; stroke: var(--b); stroke-dasharray: 7 3; }
.moue-svg .s2 { stroke: #1c7a3e; stroke: var(--c); stroke-dasharray: 2 3; } .moue-svg .s3 { stroke: #7a2fa8; stroke: var(--d); stroke-dasharray: 9 3 2 3; }
.moue-svg .m0 { fill: #1f5fa8; fill: var(--a); } .moue-svg .m1 { fill: #b3440d; fill: var(--b); } .moue-svg .m2 { fill: #1c7a3e; fill: var(--c); }
.moue-svg .m3 { fill: #7a2fa8; fill: var(--d); }
.moue-svg .mark { stroke: #1b1f24; stroke: var(--ink); stroke-opacity: .55; stroke-dasharray: 1 4; }
@media (max-width: 520px) { .moue-svg.small text { font-size: 17px; } .moue-svg.small .title { font-size: 19px; } }
)";

constexpr double kSmall = 640;  // pictures up to this wide shrink with the screen, their words less

constexpr std::array<std::string_view, 10> kClasses = {"solid", "hollow", "frame", "grid", "axis",
                                                       "mark",  "s0",     "s1",    "s2",   "s3"};

std::string_view class_of(Ink ink) { return kClasses[static_cast<size_t>(ink)]; }

int series_of(Ink ink) {
  return std::max(0, static_cast<int>(ink) - static_cast<int>(Ink::Series0));
}

// Up to two decimals: a hundredth of a pixel, and the same text on every machine.
std::string px(double value) {
  std::string text = fmt::format("{:.2f}", value);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.back() == '.') text.pop_back();
  return text == "-0" ? "0" : text;
}

std::string escaped(std::string_view text) {
  std::string result;
  for (char c : text) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      default:
        result += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
  }
  return result;
}

std::string_view anchor_of(Anchor anchor) {
  return anchor == Anchor::Start ? "start" : anchor == Anchor::Middle ? "middle" : "end";
}

}  // namespace

Svg::Svg(double width, double height, std::string_view title, std::string_view description) {
  head_ = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"moue-svg {5}\" role=\"img\" width=\"{0}\" "
      "height=\"{1}\" "
      "viewBox=\"0 0 {0} {1}\">\n<title>{2}</title>\n<desc>{3}</desc>\n<style>{4}</style>\n"
      "<rect class=\"paper\" width=\"{0}\" height=\"{1}\"/>\n<text class=\"title\" x=\"12\" "
      "y=\"22\">{2}</text>\n",
      px(width), px(height), escaped(title), escaped(description), kStyle,
      width <= kSmall ? "small" : "wide");
}

void Svg::rectangle(double x, double y, double width, double height, Ink ink) {
  body_ += fmt::format("<rect class=\"{}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/>\n",
                       class_of(ink), px(x), px(y), px(width), px(height));
}

void Svg::rectangle(double x, double y, double width, double height, Ink ink,
                    std::string_view hint) {
  body_ += fmt::format(
      "<rect class=\"{}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"><title>{}</title></rect>\n",
      class_of(ink), px(x), px(y), px(width), px(height), escaped(hint));
}

void Svg::line(double x1, double y1, double x2, double y2, Ink ink) {
  body_ += fmt::format("<line class=\"{}\" x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\"/>\n",
                       class_of(ink), px(x1), px(y1), px(x2), px(y2));
}

void Svg::polyline(const std::vector<double>& x, const std::vector<double>& y, Ink ink) {
  body_ += fmt::format("<polyline class=\"{}\" points=\"", class_of(ink));
  for (size_t i = 0; i < x.size(); ++i)
    body_ += fmt::format("{}{},{}", i ? " " : "", px(x[i]), px(y[i]));
  body_ += "\"/>\n";
}

void Svg::marker(double x, double y, Ink ink) {
  const int series = series_of(ink);
  constexpr double r = 4;
  const auto shape = [&](std::string_view points) {
    body_ += fmt::format("<polygon class=\"m{}\" points=\"{}\"/>\n", series, points);
  };
  const std::string left = px(x - r), right = px(x + r), top = px(y - r), bottom = px(y + r);
  if (series == 0) {
    body_ +=
        fmt::format("<circle class=\"m0\" cx=\"{}\" cy=\"{}\" r=\"{}\"/>\n", px(x), px(y), px(r));
  } else if (series == 1) {
    shape(fmt::format("{0},{1} {2},{1} {2},{3} {0},{3}", left, top, right, bottom));
  } else if (series == 2) {
    shape(fmt::format("{},{} {},{} {},{}", left, bottom, px(x), top, right, bottom));
  } else {
    shape(fmt::format("{},{} {},{} {},{} {},{}", left, px(y), px(x), top, right, px(y), px(x),
                      bottom));
  }
}

void Svg::dots(const std::vector<double>& x, const std::vector<double>& y,
               const std::vector<double>& side, Ink ink) {
  body_ += fmt::format("<path class=\"{}\" d=\"",
                       ink == Ink::Solid ? "solid" : fmt::format("m{}", series_of(ink)));
  for (size_t i = 0; i < x.size(); ++i) {
    const std::string length = px(side[i]);
    body_ += fmt::format("M{},{}h{}v{}h-{}z", px(x[i] - side[i] / 2), px(y[i] - side[i] / 2),
                         length, length, length);
  }
  body_ += "\"/>\n";
}

void Svg::text(double x, double y, std::string_view text, Anchor anchor) {
  body_ += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"{}\">{}</text>\n", px(x), px(y),
                       anchor_of(anchor), escaped(text));
}

void Svg::text_upwards(double x, double y, std::string_view text) {
  body_ += fmt::format(
      "<text transform=\"translate({} {}) rotate(-90)\" text-anchor=\"middle\">{}</text>\n", px(x),
      px(y), escaped(text));
}

std::string Svg::finish() const { return head_ + body_ + "</svg>\n"; }

}  // namespace moue
