// Report: what was measured or compared, and by how much; as text, JSON or a self-contained HTML
// page.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace moue {

using Value = std::variant<bool, int64_t, double, std::string>;
std::string value_text(const Value& value);

struct Fact {
  std::string key;  ///< snake_case, stable: the JSON key
  Value value;
  std::string unit;  ///< "B", "tok/s", "" where there is none
};

enum class Outcome : uint8_t { Pass, Fail, NotApplicable };
std::string_view to_string(Outcome);

/// One comparison with a bound. `note` says what differs first, or why it does not apply.
struct Check {
  std::string name;  ///< "G1 logits"
  Outcome outcome = Outcome::Pass;
  std::optional<double> value;
  std::optional<double> bound;  ///< value <= bound passes
  std::string note;
};

struct Table {
  std::string key;  ///< JSON key
  std::string title;
  std::vector<std::string> columns;
  std::vector<std::vector<Value>> rows;
  bool data = false;  ///< what a picture is drawn from: in JSON alone
};

struct Picture {
  std::string title;  ///< stands under it: what it shows
  std::string svg;
};

struct Report {
  std::string verb;  ///< "inspect", "validate", ...
  std::string title;
  std::vector<Fact> facts;
  std::vector<Check> checks;
  std::vector<Table> tables;
  std::vector<Picture> pictures;
  std::vector<std::string> warnings;

  bool passed() const;  ///< no check failed
};

std::string to_text(const Report& report);
std::string to_json(
    const Report& report);  ///< one object: verb, title, facts, checks, tables, warnings, passed
std::string to_html(const Report& report);  ///< loads nothing, runs nothing

/// "1.5 GiB", "14.2 M", "3 m 20 s", as every verb prints them.
std::string bytes_text(uint64_t bytes);
std::string count_text(double count);
std::string duration_text(double seconds);

}  // namespace moue
