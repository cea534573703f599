// Memory sizes as people write them.
#include <fmt/format.h>

#include <charconv>

#include "recipe/knob.h"

namespace moue {
namespace {

/// Sizes go through double, which holds every whole number up to here.
constexpr double kLargest = 9007199254740992.0;

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
  for (const auto& [unit, size] : {std::pair("TB", uint64_t{1'000'000'000'000}),
                                   {"GB", 1'000'000'000},
                                   {"MB", 1'000'000},
                                   {"kB", 1000}}) {
    if (bytes >= size && bytes % size == 0) return fmt::format("{}{}", bytes / size, unit);
  }
  return fmt::format("{}B", bytes);
}

}  // namespace moue
