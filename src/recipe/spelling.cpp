// Spelling: memory sizes as people write them, and the known name nearest to a mistyped one.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "recipe/knob.h"

namespace moue {
namespace {

/// Sizes go through double, which holds every whole number up to here.
constexpr double kLargest = 9007199254740992.0;

/// Levenshtein's distance.
size_t edits(std::string_view from, std::string_view to) {
  std::vector<size_t> row(to.size() + 1);
  for (size_t column = 0; column < row.size(); ++column) row[column] = column;
  for (size_t i = 0; i < from.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i + 1;
    for (size_t j = 0; j < to.size(); ++j) {
      const size_t above = row[j + 1];
      row[j + 1] = std::min({row[j] + 1, above + 1, diagonal + (from[i] == to[j] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row.back();
}

}  // namespace

std::optional<uint64_t> parse_size(std::string_view text) {
  struct Unit {
    std::string_view name;
    uint64_t bytes;
  };
  static constexpr Unit kUnits[] = {{"KiB", 1ULL << 10},   {"MiB", 1ULL << 20},
                                    {"GiB", 1ULL << 30},   {"TiB", 1ULL << 40},
                                    {"kB", 1000},          {"KB", 1000},
                                    {"MB", 1000000},       {"GB", 1000000000},
                                    {"TB", 1000000000000}, {"B", 1}};
  uint64_t factor = 1;
  for (const Unit& unit : kUnits) {
    if (!text.ends_with(unit.name)) continue;
    factor = unit.bytes;
    text.remove_suffix(unit.name.size());
    break;
  }
  while (text.ends_with(' ')) text.remove_suffix(1);
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  const double bytes = number * static_cast<double>(factor);
  if (!(bytes >= 0 && bytes <= kLargest)) return std::nullopt;
  return static_cast<uint64_t>(bytes);
}

std::string size_text(uint64_t bytes) {
  for (const auto& [unit, shift] : {std::pair("TiB", 40), {"GiB", 30}, {"MiB", 20}, {"KiB", 10}}) {
    const uint64_t size = uint64_t{1} << shift;
    if (bytes >= size && bytes % size == 0) return fmt::format("{}{}", bytes / size, unit);
  }
  return fmt::format("{}B", bytes);
}

std::string nearest(std::string_view name, const std::vector<std::string>& candidates) {
  if (name.size() > 200) return {};
  std::string best;
  size_t fewest = std::max<size_t>(2, name.size() / 2) + 1;
  for (const auto& candidate : candidates) {
    const size_t distance = edits(name, candidate);
    if (distance < fewest) fewest = distance, best = candidate;
  }
  return best;
}

}  // namespace moue
