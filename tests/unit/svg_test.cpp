// Pictures: well-formed XML, escaped words, what each chart shows, both colour schemes.
#include "report/svg.h"

#include <catch2/catch.hpp>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

using namespace moue;

namespace {

size_t count_of(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

// Tags open and close in order, attributes are quoted, no raw & or < in text: enough of XML for
// what we write.
bool is_well_formed(const std::string& svg) {
  std::vector<std::string> open;
  for (size_t at = 0; at < svg.size(); ++at) {
    if (svg[at] == '&' && svg.compare(at, 4, "&lt;") && svg.compare(at, 4, "&gt;") &&
        svg.compare(at, 5, "&amp;") && svg.compare(at, 6, "&quot;")) {
      return false;
    }
    if (svg[at] != '<') continue;
    const size_t end = svg.find('>', at);
    if (end == std::string::npos) return false;
    const std::string tag = svg.substr(at + 1, end - at - 1);
    if (count_of(tag, "\"") % 2 || count_of(tag, "<")) return false;
    if (tag[0] == '/') {
      if (open.empty() || open.back() != tag.substr(1)) return false;
      open.pop_back();
    } else if (tag.back() != '/') {
      open.push_back(tag.substr(0, tag.find(' ')));
    }
    at = end;
  }
  return open.empty();
}

const std::vector<Series> kTwo = {{"source", {0, 10, 20}, {3, 2, 1.5}},
                                  {"MoUE <x>", {0, 10, 20}, {3, 2.5, 1.25}}};

}  // namespace

TEST_CASE("the check of well-formedness sees faults") {
  CHECK(is_well_formed("<svg><a x=\"1\"/></svg>"));
  CHECK_FALSE(is_well_formed("<svg><a></svg>"));
  CHECK_FALSE(is_well_formed("<svg>a & b</svg>"));
  CHECK_FALSE(is_well_formed("<svg x=\"1></svg>"));
}

TEST_CASE("a canvas is well-formed, titled and knows both schemes") {
  Svg svg(100, 50, "a < b & \"c\"", "what\x01it shows");
  svg.rectangle(1, 2, 3.14159, 4, Ink::Solid, "hint > 3");
  svg.rectangle(1, 2, 3, 4, Ink::Hollow);
  svg.line(0, 0, -0.001, 9, Ink::Grid);
  svg.dots({10, 20.5}, {30, 40}, {4, 2}, Ink::Series1);
  for (Ink ink : {Ink::Series0, Ink::Series1, Ink::Series2, Ink::Series3}) svg.marker(5, 5, ink);
  svg.text(1, 1, "<script>alert(1)</script>");
  const std::string text = svg.finish();
  CHECK(is_well_formed(text));
  CHECK(text.rfind("<svg xmlns=\"http://www.w3.org/2000/svg\"", 0) == 0);
  CHECK(count_of(text, "<title>a &lt; b &amp; &quot;c&quot;</title>") == 1);
  CHECK(count_of(text, "prefers-color-scheme: dark") == 1);
  CHECK(count_of(text, "<script") == 0);
  CHECK(count_of(text, "width=\"3.14\"") == 1);
  CHECK(count_of(text, "x2=\"0\"") == 1);
  CHECK(count_of(text, "\x01") == 0);
  CHECK(count_of(text, "class=\"m2\"") == 1);
  CHECK(count_of(text, "d=\"M8,28h4v4h-4zM19.5,39h2v2h-2z\"") == 1);
}

TEST_CASE("narrow pictures shrink with the screen, wide ones do not") {
  CHECK(count_of(Svg(640, 10, "t", "d").finish(), "class=\"moue-svg small\"") == 1);
  CHECK(count_of(Svg(641, 10, "t", "d").finish(), "class=\"moue-svg wide\"") == 1);
}

TEST_CASE("a logarithmic axis has powers of ten and gaps where there is no logarithm") {
  CHECK(power_ticks(0.5, 30) == std::vector<double>{0.5, 1, 2, 5, 10, 20});
  CHECK(power_ticks(1e-2, 1e3).size() == 6);
  CHECK(power_ticks(1e-20, 1e20).size() <= 9);
  Axis y{"norm"};
  y.logarithmic = true;
  const std::vector<Series> series = {{"s", {0, 1, 2, 3, 4}, {1, 100, 0, 10, -1}}};
  const std::string chart = line_chart("t", {"x"}, y, series);
  CHECK(is_well_formed(chart));
  CHECK(count_of(chart, "class=\"m0\"") == 4);  // three points and the legend's
  // 10 lies half-way between 1 and 100, not at a tenth.
  const auto height_of = [](const std::string& text, size_t marker) {
    size_t at = 0;
    for (size_t i = 0; i <= marker; ++i) at = text.find("class=\"m0\"", at + 1);
    return std::stod(text.substr(text.find("cy=\"", at) + 4));
  };
  CHECK(height_of(chart, 2) ==
        Approx((height_of(chart, 0) + height_of(chart, 1)) / 2).epsilon(1e-3));
  const std::string linear = line_chart("t", {"x"}, {"norm"}, series);
  CHECK(height_of(linear, 3) > height_of(linear, 1) + 100);
}

TEST_CASE("points have no line, marks have names while there is room") {
  const std::vector<Series> points = {{"line", {0, 9}, {0, 9}},
                                      {"points", {1, 2, 3}, {1, 2, 3}, true}};
  const std::string chart = line_chart("t", {"step"}, {"y"}, points,
                                       {{2.9, "hidden"}, {3, "open"}, {6, "full"}, {99, "far"}});
  CHECK(is_well_formed(chart));
  CHECK(count_of(chart, "<polyline class=\"s1\"") == 0);
  CHECK(count_of(chart, "class=\"m1\"") == 4);
  CHECK(count_of(chart, "<line class=\"mark\"") == 3);
  CHECK(count_of(chart, ">open</text>") + count_of(chart, ">full</text>") == 2);
  CHECK(count_of(chart, ">hidden</text>") + count_of(chart, ">far</text>") == 0);
  // Many points are one element.
  const Series many{"many", std::vector<double>(500, 1.0), std::vector<double>(500, 2.0), true};
  CHECK(count_of(line_chart("t", {"x"}, {"y"}, {many}), "class=\"m0\"") == 2);
}

TEST_CASE("a thinned curve keeps its end and means") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Series series{"s", {1, 2, 3, 4, 5, 6, 7}, {1, 3, 5, nan, nan, nan, 8}};
  CHECK(thinned(series, 7).y[0] == 1);
  const Series thin = thinned(series, 4);
  CHECK(thin.x == std::vector<double>{2, 4, 6, 7});
  CHECK(thin.y[0] == 2);
  CHECK(thin.y[1] == 5);
  CHECK(std::isnan(thin.y[2]));
  CHECK(thin.y[3] == 8);
}

TEST_CASE("ticks are round and cover the range") {
  CHECK(round_ticks(0, 10, 5) == std::vector<double>{0, 2, 4, 6, 8, 10});
  CHECK(round_ticks(-1, 1, 4) == std::vector<double>{-1, -0.5, 0, 0.5, 1});
  CHECK(round_ticks(3.2, 3.9, 4).size() <= 5);
  CHECK_FALSE(std::signbit(round_ticks(0, 10, 5)[0]));
  CHECK(round_ticks(2, 2, 4) == std::vector<double>{2});
  CHECK(round_ticks(1, 1 + 4e-16, 4) == std::vector<double>{1});  // nearer than doubles can count
}

TEST_CASE("a line chart has its series, labels and legend") {
  const std::string chart =
      line_chart("held-out loss", {"step", {}, {}}, {"loss, nats", 0, {}}, kTwo);
  CHECK(is_well_formed(chart));
  CHECK(count_of(chart, "<polyline class=\"s0\"") == 2);  // the line and its sample in the legend
  CHECK(count_of(chart, "<polyline class=\"s1\"") == 2);
  CHECK(count_of(chart, ">step</text>") == 1);
  CHECK(count_of(chart, ">loss, nats</text>") == 1);
  CHECK(count_of(chart, ">MoUE &lt;x&gt;</text>") == 1);
  CHECK(count_of(chart, "class=\"m0\"") == 4);
  CHECK(chart == line_chart("held-out loss", {"step", {}, {}}, {"loss, nats", 0, {}}, kTwo));
}

TEST_CASE("charts survive what is not finite, one point, and nothing") {
  const double nan = std::numeric_limits<double>::quiet_NaN(),
               inf = std::numeric_limits<double>::infinity();
  const std::string gaps = line_chart("t", {"x", {}, {}}, {"y", {}, {}},
                                      {{"s", {0, 1, 2, 3, 4, 5}, {1, 2, nan, 3, inf, 4}}});
  CHECK(is_well_formed(gaps));
  CHECK(count_of(gaps, "<polyline class=\"s0\"") ==
        2);  // 0-1 and the legend; the single points are markers
  CHECK(count_of(gaps, "class=\"m0\"") == 5);
  for (const std::string& chart : {gaps, line_chart("t", {"x", {}, {}}, {"y", {}, {}}, {}),
                                   line_chart("t", {"x", {}, {}}, {"y", {}, {}}, {{"s", {2}, {2}}}),
                                   square_chart("t", "expert", "layer", {{nan, inf, 0.5}}, "load"),
                                   square_chart("t", "expert", "layer", {}, "load")}) {
    CHECK(is_well_formed(chart));
    CHECK(count_of(chart, "nan") == 0);
    CHECK(count_of(chart, "=\"inf") == 0);
  }
}

TEST_CASE("a square chart draws areas in proportion") {
  const std::string chart = square_chart("load", "expert", "layer", {{1, 0.25}, {0, 0.5}}, "load");
  CHECK(is_well_formed(chart));
  CHECK(count_of(chart, "class=\"solid\"") == 3);
  CHECK(count_of(chart, "width=\"44.16\" height=\"44.16\"") == 1);
  CHECK(count_of(chart, "width=\"22.08\" height=\"22.08\"") == 1);
  CHECK(count_of(chart, "<title>layer 0, expert 1: load 0.25</title>") == 1);
  CHECK(count_of(chart, "a full square is load 1<") == 1);
}

TEST_CASE("a large square chart is one element, and still in proportion") {
  const std::vector<std::vector<double>> rows(40, std::vector<double>(60, 1.0));
  const std::string chart = square_chart("load", "slot", "layer", rows, "load", 4.0, 20);
  CHECK(is_well_formed(chart));
  CHECK(count_of(chart, "class=\"solid\"") == 1);
  CHECK(count_of(chart, "v6.9h-6.9z") == 2400);  // half of 0.92 of 15
  CHECK(count_of(chart, "<line class=\"mark\" x1=\"370\"") == 1);
  CHECK(chart.size() < 100'000);
}
