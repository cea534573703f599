// A report as aligned plain text, for the terminal.
#include <fmt/format.h>

#include <algorithm>

#include "moue/report.h"
#include "report/values.h"

namespace moue {
namespace {

using Cells = std::vector<std::vector<std::string>>;

/// Columns in a terminal: bytes that do not continue a UTF-8 sequence.
size_t columns_of(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char byte) {
    return (static_cast<unsigned char>(byte) & 0xC0U) != 0x80U;
  }));
}

/// What is shown on one line stays on one line, whatever a file's author named a tensor.
std::string one_line(std::string text) {
  std::replace_if(
      text.begin(), text.end(),
      [](char byte) { return static_cast<unsigned char>(byte) < 0x20U || byte == 0x7F; }, ' ');
  return text;
}

/// Rows of cells with columns padded to their widest cell; `right[c]` sets a column flush right.
std::string aligned(const Cells& rows, const std::vector<bool>& right) {
  std::vector<size_t> widths(right.size(), 0);
  for (const auto& row : rows) {
    for (size_t column = 0; column < row.size(); ++column) {
      widths[column] = std::max(widths[column], columns_of(row[column]));
    }
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line = " ";
    for (size_t column = 0; column < row.size(); ++column) {
      const std::string gap(widths[column] - columns_of(row[column]), ' ');
      line += " " + (right[column] ? gap + row[column] : row[column] + gap) + " ";
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

std::string text_of(const std::vector<Fact>& facts) {
  Cells rows;
  for (const Fact& fact : facts) rows.push_back({one_line(fact.key), one_line(fact_text(fact))});
  return aligned(rows, {false, false});
}

std::string text_of(const std::vector<Check>& checks) {
  Cells rows;
  for (const Check& check : checks) {
    rows.push_back({std::string(to_string(check.outcome)), one_line(check.name), bound_text(check),
                    one_line(check.note)});
  }
  return aligned(rows, {false, false, false, false});
}

std::string text_of(const Table& table) {
  Cells rows{table.columns};
  std::vector<bool> right(table.columns.size(), true);
  for (const auto& row : table.rows) {
    auto& cells = rows.emplace_back();
    for (size_t column = 0; column < row.size() && column < right.size(); ++column) {
      cells.push_back(one_line(value_text(row[column])));
      if (!is_number(row[column]) && !cells.back().empty()) right[column] = false;
    }
  }
  return fmt::format("{}\n{}", one_line(table.title), aligned(rows, right));
}

}  // namespace

std::string to_text(const Report& report) {
  std::string text = fmt::format("{}: {}\n", report.verb, one_line(report.title));
  if (!report.facts.empty()) text += "\n" + text_of(report.facts);
  if (!report.checks.empty()) text += "\nchecks\n" + text_of(report.checks);
  for (const Table& table : report.tables) {
    if (!table.data) text += "\n" + text_of(table);
  }
  if (!report.warnings.empty()) text += "\n";
  for (const auto& warning : report.warnings)
    text += fmt::format("warning: {}\n", one_line(warning));
  return text;
}

}  // namespace moue
