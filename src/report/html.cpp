// A report as one self-contained HTML page: a single stylesheet, pictures inline, no script,
// nothing loaded.
#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "moue/report.h"
#include "report/values.h"

namespace moue {
namespace {

constexpr std::string_view kStyle = R"(
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --soft: #f2f4f7; --line: #d4d9e0;
  --muted: #57606a; --pass: #11692f; --fail: #b3141d; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --paper: #14171c; --soft: #1e232b;
  --line: #363d49; --muted: #a0a9b6; --pass: #6fd08c; --fail: #ff8a8a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.25rem 1rem 3rem; max-width: 76rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; overflow-wrap: anywhere; }
.verdict { font-weight: 600; }
.scroll { overflow-x: auto; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 10.5rem), 1fr));
  gap: .7rem 1rem; margin: .5rem 0 0; }
.facts div { padding: 0 .7rem; border-left: 3px solid var(--line); }
.facts dt { color: var(--muted); font-size: .82rem; }
.facts dd { margin: 0; font-weight: 600; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; }
thead th { border-bottom: 2px solid var(--line); white-space: nowrap; }
tbody tr:nth-child(even) { background: var(--soft); }
td.number { text-align: right; white-space: nowrap; }
td.text { overflow-wrap: anywhere; min-width: 6ch; }
.pass { color: var(--pass); } .fail { color: var(--fail); font-weight: 700; }
.not-applicable { color: var(--muted); }
.warning { border-left: .3rem solid var(--fail); padding: .3rem .8rem; background: var(--soft);
  overflow-wrap: anywhere; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 33rem), 1fr));
  grid-auto-flow: dense; gap: 1.5rem 1.25rem; margin: 1.5rem 0; align-items: start; }
figure { margin: 0; min-width: 0; }
figure svg { max-width: 100%; height: auto; display: block; }
figure svg.wide { min-width: 40rem; }
figure:has(svg.wide) { grid-column: 1 / -1; }
figcaption { color: var(--muted); font-size: .92rem; margin-top: .25rem; }
@media print { body { max-width: none; padding: 0; font-size: 10pt; } .scroll { overflow: visible; }
  tr, figure { break-inside: avoid; } thead { display: table-header-group; } }
)";

std::string escaped(std::string_view text) {
  std::string safe;
  safe.reserve(text.size());
  for (const char letter : text) {
    switch (letter) {
      case '&':
        safe += "&amp;";
        break;
      case '<':
        safe += "&lt;";
        break;
      case '>':
        safe += "&gt;";
        break;
      case '"':
        safe += "&quot;";
        break;
      case '\'':
        safe += "&#39;";
        break;
      default:
        safe += letter;
    }
  }
  return safe;
}

std::string_view class_of(Outcome outcome) {
  return outcome == Outcome::NotApplicable ? "not-applicable" : to_string(outcome);
}

std::string cell(std::string_view kind, std::string_view text) {
  return fmt::format("<td class=\"{}\">{}</td>", kind, escaped(text));
}

std::string words_of(std::string key) {
  std::replace(key.begin(), key.end(), '_', ' ');
  return key;
}

std::string html_of(const std::vector<Fact>& facts) {
  std::string items;
  for (const Fact& fact : facts) {
    items += fmt::format("<div><dt>{}</dt><dd>{}</dd></div>\n", escaped(words_of(fact.key)),
                         escaped(fact_text(fact)));
  }
  return fmt::format("<h2>Facts</h2>\n<dl class=\"facts\">\n{}</dl>\n", items);
}

std::string html_of(const std::vector<Check>& checks) {
  std::string rows;
  for (const Check& check : checks) {
    rows += fmt::format("<tr>{}{}{}{}</tr>\n", cell("text", check.name),
                        cell(class_of(check.outcome), to_string(check.outcome)),
                        cell("number", bound_text(check)), cell("text", check.note));
  }
  return fmt::format(
      "<h2>Checks</h2>\n<div class=\"scroll\"><table><thead><tr><th scope=\"col\">check</th>"
      "<th scope=\"col\">outcome</th><th scope=\"col\">value and bound</th><th "
      "scope=\"col\">note</th>"
      "</tr></thead><tbody>\n{}</tbody></table></div>\n",
      rows);
}

std::string html_of(const Table& table) {
  std::string head, rows;
  for (const auto& column : table.columns) {
    head += fmt::format("<th scope=\"col\">{}</th>", escaped(column));
  }
  for (const auto& row : table.rows) {
    rows += "<tr>";
    for (const Value& value : row)
      rows += cell(is_number(value) ? "number" : "text", value_text(value));
    rows += "</tr>\n";
  }
  return fmt::format(
      "<h2>{}</h2>\n<div class=\"scroll\"><table><thead><tr>{}</tr></thead><tbody>\n{}"
      "</tbody></table></div>\n",
      escaped(table.title), head, rows);
}

/// Only what the project's own writer makes is put in as markup; anything else is shown as the text
/// it is.
std::string html_of(const Picture& picture) {
  const bool drawn =
      picture.svg.starts_with("<svg") && picture.svg.find("<script") == std::string::npos;
  return fmt::format(
      "<figure>\n<div class=\"scroll\">{}</div>\n<figcaption>{}</figcaption>\n</figure>\n",
      drawn ? picture.svg : escaped(picture.svg), escaped(picture.title));
}

std::string verdict(const Report& report) {
  if (report.checks.empty()) return {};
  const bool passed = report.passed();
  return fmt::format("<p class=\"verdict {}\">{}</p>\n", passed ? "pass" : "fail",
                     passed ? "Every check that applies passes." : "A check fails.");
}

}  // namespace

std::string to_html(const Report& report) {
  const std::string title = escaped(report.verb + ": " + report.title);
  std::string body = fmt::format("<h1>{}</h1>\n{}", title, verdict(report));
  for (const auto& warning : report.warnings) {
    body += fmt::format("<p class=\"warning\">{}</p>\n", escaped(warning));
  }
  if (!report.checks.empty()) body += html_of(report.checks);
  if (!report.facts.empty()) body += html_of(report.facts);
  if (!report.pictures.empty()) {
    body += "<div class=\"pictures\">\n";
    for (const Picture& picture : report.pictures) body += html_of(picture);
    body += "</div>\n";
  }
  for (const Table& table : report.tables) {
    if (!table.data) body += html_of(table);
  }
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, "
      "initial-scale=1\">\n<title>{}</title>\n"
      "<style>{}</style>\n</head>\n<body>\n<main>\n{}</main>\n</body>\n</html>\n",
      title, kStyle, body);
}

}  // namespace moue
