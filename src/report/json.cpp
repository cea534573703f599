// A report as one JSON object with stable keys, for other programs.
#include <cmath>
#include <nlohmann/json.hpp>

#include "moue/report.h"

namespace moue {
namespace {

using Json = nlohmann::ordered_json;

/// JSON has no infinities: they become the strings "inf", "-inf" and "nan" rather than a null that
/// hides them.
Json json_of(double number) {
  if (std::isfinite(number)) return number;
  if (std::isnan(number)) return "nan";
  return number > 0 ? "inf" : "-inf";
}

Json json_of(const Value& value) {
  if (const auto* real = std::get_if<double>(&value)) return json_of(*real);
  if (const auto* truth = std::get_if<bool>(&value)) return *truth;
  if (const auto* whole = std::get_if<int64_t>(&value)) return *whole;
  return std::get<std::string>(value);
}

Json json_of(const std::optional<double>& number) { return number ? json_of(*number) : Json(); }

Json json_of(const Check& check) {
  return {{"name", check.name},
          {"outcome", to_string(check.outcome)},
          {"value", json_of(check.value)},
          {"bound", json_of(check.bound)},
          {"note", check.note}};
}

Json json_of(const Table& table) {
  Json rows = Json::array();
  for (const auto& row : table.rows) {
    Json cells = Json::array();
    for (const Value& value : row) cells.push_back(json_of(value));
    rows.push_back(std::move(cells));
  }
  return {{"title", table.title}, {"columns", table.columns}, {"rows", std::move(rows)}};
}

}  // namespace

std::string to_json(const Report& report) {
  Json facts = Json::object(), units = Json::object(), tables = Json::object();
  Json checks = Json::array();
  for (const Fact& fact : report.facts) {
    facts[fact.key] = json_of(fact.value);
    if (!fact.unit.empty()) units[fact.key] = fact.unit;
  }
  for (const Check& check : report.checks) checks.push_back(json_of(check));
  for (const Table& table : report.tables) tables[table.key] = json_of(table);
  const Json object = {{"verb", report.verb},         {"title", report.title},
                       {"facts", std::move(facts)},   {"units", std::move(units)},
                       {"checks", std::move(checks)}, {"tables", std::move(tables)},
                       {"warnings", report.warnings}, {"passed", report.passed()}};
  return object.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace moue
