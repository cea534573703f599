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
}

TEST_CASE("ticks are round and cover the range") {
  CHECK(round_ticks(0, 10, 5) == std::vector<double>{0, 2, 4, 6, 8, 10});
  CHECK(round_ticks(-1, 1, 4) == std::vector<double>{-1, -0.5, 0, 0.5, 1});
  CHECK(round_ticks(3.2, 3.9, 4).size() <= 5);
  CHECK_FALSE(std::signbit(round_ticks(0, 10, 5)[0]));
  CHECK(round_ticks(2, 2, 4) == std::vector<double>{2});
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
  CHECK(count_of(chart, "width=\"23.92\" height=\"23.92\"") == 1);
  CHECK(count_of(chart, "width=\"11.96\" height=\"11.96\"") == 1);
  CHECK(count_of(chart, "<title>layer 0, expert 1: load 0.25</title>") == 1);
  CHECK(count_of(chart, "a full square is load 1<") == 1);
}
