// Reports as text, JSON and HTML: what is shown, what is kept exactly, what is escaped.
#include "moue/report.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

using namespace moue;

namespace {

Report sample() {
  Report report;
  report.verb = "validate";
  report.title = "original against result";
  report.facts = {
      {"bytes", int64_t{3} << 29, "B"}, {"loss", 3.2398615, "nats"}, {"closed", true, ""}};
  report.checks = {{"G0 bytes", Outcome::Pass, 0.0, 0.0, "81 tensors"},
                   {"G1 logits", Outcome::Fail, 0.25, 0.0, "layer 3 differs first"},
                   {"G2 recorded logits", Outcome::NotApplicable, {}, {}, "no --reference"}};
  report.tables = {{"layers",
                    "Per layer",
                    {"layer", "name"},
                    {{int64_t{0}, std::string("a")}, {int64_t{10}, std::string("long")}}}};
  report.warnings = {"the last block overlaps"};
  return report;
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

size_t count(const std::string& text, const std::string& part) {
  size_t found = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

}  // namespace

TEST_CASE("bytes, counts and durations read the same everywhere", "[unit][report]") {
  CHECK(bytes_text(0) == "0 B");
  CHECK(bytes_text(1023) == "1023 B");
  CHECK(bytes_text(1024) == "1 KiB");
  CHECK(bytes_text(3ULL << 29) == "1.5 GiB");
  CHECK(bytes_text((1ULL << 30) - 1) == "1 GiB");
  CHECK(bytes_text(std::numeric_limits<uint64_t>::max()) == "16777216 TiB");
  CHECK(count_text(8) == "8");
  CHECK(count_text(4860032) == "4.9 M");
  CHECK(count_text(14200000) == "14.2 M");
  CHECK(count_text(999960) == "1 M");
  CHECK(duration_text(0.0124) == "12 ms");
  CHECK(duration_text(59.97) == "1 m 0 s");
  CHECK(duration_text(200) == "3 m 20 s");
  CHECK(duration_text(3660) == "1 h 1 m");
  CHECK(duration_text(std::numeric_limits<double>::infinity()) == "unknown");
}

TEST_CASE("a report passes unless a check fails", "[unit][report]") {
  Report report = sample();
  CHECK_FALSE(report.passed());
  report.checks[1].outcome = Outcome::NotApplicable;
  CHECK(report.passed());
  CHECK(Report{}.passed());
}

TEST_CASE("text shows facts, checks with bounds, aligned tables and warnings", "[unit][report]") {
  const std::string text = to_text(sample());
  CHECK(has(text, "validate: original against result\n"));
  CHECK(has(text, "  bytes   1.5 GiB\n"));
  CHECK(has(text, "  loss    3.23986 nats\n"));
  CHECK(has(text, "  pass            G0 bytes            0 <= 0    81 tensors\n"));
  CHECK(has(text, "  fail            G1 logits           0.25 > 0  layer 3 differs first\n"));
  CHECK(has(text, "  not applicable  G2 recorded logits            no --reference\n"));
  CHECK(has(text, "Per layer\n  layer  name\n      0  a\n     10  long\n"));
  CHECK(has(text, "warning: the last block overlaps\n"));
}

TEST_CASE("a name with a line break cannot forge a line of text", "[unit][report]") {
  Report report = sample();
  report.checks[0].note = "x\n  pass  forged";
  CHECK_FALSE(has(to_text(report), "\n  pass  forged"));
}

TEST_CASE("JSON keeps keys, types and every bit of a double", "[unit][report]") {
  Report report = sample();
  report.facts.push_back({"third", 1.0 / 3.0, ""});
  report.facts.push_back({"hole", std::nan(""), ""});
  report.facts.push_back({"far", -std::numeric_limits<double>::infinity(), ""});
  report.facts.push_back({"bad", std::string("\xff"), ""});
  const auto json = nlohmann::json::parse(to_json(report));
  CHECK(json["verb"] == "validate");
  CHECK(json["facts"]["bytes"] == 1610612736);
  CHECK(json["units"]["bytes"] == "B");
  CHECK(json["facts"]["third"].get<double>() == 1.0 / 3.0);
  CHECK(json["facts"]["closed"] == true);
  CHECK(json["facts"]["hole"] == "nan");
  CHECK(json["facts"]["far"] == "-inf");
  CHECK(json["checks"][1]["outcome"] == "fail");
  CHECK(json["checks"][1]["value"] == 0.25);
  CHECK(json["checks"][2]["value"].is_null());
  CHECK(json["tables"]["layers"]["rows"][1][0] == 10);
  CHECK(json["warnings"][0] == "the last block overlaps");
  CHECK(json["passed"] == false);
}

TEST_CASE("an empty cell leaves numbers flush right", "[unit][report]") {
  Report report = sample();
  report.tables[0].rows.push_back({std::string(), std::string("x")});
  CHECK(has(to_text(report), "      0  a\n     10  long\n"));
  report.tables[0].rows.back()[0] = std::string("y");
  CHECK(has(to_text(report), "  0      a\n"));
}

TEST_CASE("data of pictures is in JSON alone", "[unit][report]") {
  Report report = sample();
  REQUIRE(has(to_text(report), "Per layer"));
  REQUIRE(has(to_html(report), "Per layer"));
  report.tables[0].data = true;
  CHECK_FALSE(has(to_text(report), "Per layer"));
  CHECK_FALSE(has(to_html(report), "Per layer"));
  CHECK(has(to_json(report), "Per layer"));
}

TEST_CASE("HTML escapes what it is given and loads nothing", "[unit][report]") {
  Report report = sample();
  const std::string evil = "<img src=x onerror=\"alert('1')\">&";
  report.title = report.facts[0].key = report.checks[0].note = report.checks[0].name = evil;
  report.tables[0].title = report.tables[0].columns[0] = report.warnings[0] = evil;
  report.tables[0].rows[0][1] = evil;
  report.pictures = {
      {evil, evil}, {"drawn", "<svg width=\"1\"></svg>"}, {"bad", "<svg><script/></svg>"}};
  const std::string page = to_html(report);
  CHECK(count(page, "<img") == 0);
  CHECK(count(page, "&lt;img src=x onerror=&quot;alert(&#39;1&#39;)&quot;&gt;&amp;") == 11);
  CHECK(count(page, "<svg") == 1);
  CHECK(count(page, "<script") == 0);
  for (const char* loads : {"http:", "https:", "url(", "@import", "<link", " src=\""}) {
    INFO(loads);
    CHECK(count(page, loads) == 0);
  }
}

TEST_CASE("HTML is one page for narrow, wide, dark and paper", "[unit][report]") {
  const std::string page = to_html(sample());
  CHECK(page.starts_with("<!DOCTYPE html>\n<html lang=\"en\">"));
  CHECK(has(page, "width=device-width"));
  CHECK(has(page, "prefers-color-scheme: dark"));
  CHECK(has(page, "@media print"));
  CHECK(count(page, "<style>") == 1);
  CHECK(has(page, "A check fails."));
  for (const std::string tag :
       {"table", "tr", "td", "thead", "tbody", "div", "h2", "main", "figure"}) {
    INFO(tag);
    const size_t opened = count(page, "<" + tag + ">") + count(page, "<" + tag + " ");
    CHECK(opened == count(page, "</" + tag + ">"));
  }
}
