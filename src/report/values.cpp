// Values, bytes, counts and durations as every verb prints them.
#include "report/values.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace moue {
namespace {

/// Scales by `base` until the number is below it, then shows up to three significant digits and the
/// unit.
template <size_t Size>
std::string scaled(double number, double base, const std::array<const char*, Size>& units) {
  size_t unit = 0;
  // 999.95 and above would print as "1000.0": go on to the next unit before that.
  while (std::abs(number) >= base * 0.99995 && unit + 1 < units.size()) {
    number /= base;
    ++unit;
  }
  std::string digits = fmt::format("{:.{}f}", number, unit == 0 ? 0 : 1);
  if (digits.ends_with(".0")) digits.resize(digits.size() - 2);
  return *units[unit] == '\0' ? digits : fmt::format("{} {}", digits, units[unit]);
}

std::string whole_seconds(int64_t seconds) {
  const int64_t hours = seconds / 3600, minutes = seconds / 60 % 60;
  if (hours > 0) return fmt::format("{} h {} m", hours, minutes);
  return fmt::format("{} m {} s", minutes, seconds % 60);
}

}  // namespace

std::string bytes_text(uint64_t bytes) {
  return scaled(static_cast<double>(bytes), 1024.0, std::array{"B", "KiB", "MiB", "GiB", "TiB"});
}

std::string count_text(double count) {
  if (!std::isfinite(count)) return fmt::format("{}", count);
  if (std::abs(count) < 1000.0) return fmt::format("{:.4g}", count);
  return scaled(count, 1000.0, std::array{"", "k", "M", "G", "T"});
}

std::string duration_text(double seconds) {
  if (!std::isfinite(seconds)) return "unknown";
  if (seconds < 0.9995) return fmt::format("{:.0f} ms", std::max(seconds, 0.0) * 1000.0);
  if (seconds < 59.95) return fmt::format("{:.1f} s", seconds);
  if (seconds > 1e15) return "unknown";
  return whole_seconds(std::llround(seconds));
}

std::string value_text(const Value& value) {
  if (const auto* truth = std::get_if<bool>(&value)) return *truth ? "true" : "false";
  if (const auto* whole = std::get_if<int64_t>(&value)) return fmt::format("{}", *whole);
  if (const auto* real = std::get_if<double>(&value)) return fmt::format("{:.6g}", *real);
  return std::get<std::string>(value);
}

std::string fact_text(const Fact& fact) {
  const auto* whole = std::get_if<int64_t>(&fact.value);
  const auto* real = std::get_if<double>(&fact.value);
  if (fact.unit == "B" && whole != nullptr && *whole >= 0) {
    return bytes_text(static_cast<uint64_t>(*whole));
  }
  if (fact.unit == "s" && real != nullptr) return duration_text(*real);
  return fact.unit.empty() ? value_text(fact.value) : value_text(fact.value) + " " + fact.unit;
}

std::string bound_text(const Check& check) {
  if (!check.value) return {};
  if (!check.bound) return fmt::format("{:.6g}", *check.value);
  const bool within = *check.value <= *check.bound;
  return fmt::format("{:.6g} {} {:.6g}", *check.value, within ? "<=" : ">", *check.bound);
}

bool is_number(const Value& value) {
  return std::holds_alternative<int64_t>(value) || std::holds_alternative<double>(value);
}

std::string_view to_string(Outcome outcome) {
  switch (outcome) {
    case Outcome::Pass:
      return "pass";
    case Outcome::Fail:
      return "fail";
    case Outcome::NotApplicable:
      return "not applicable";
  }
  return "fail";
}

bool Report::passed() const {
  return std::none_of(checks.begin(), checks.end(),
                      [](const Check& check) { return check.outcome == Outcome::Fail; });
}

}  // namespace moue
