// Strict JSON: UTF-8, one value, no duplicate keys, bounded depth; errors with origin, line and
// column.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace moue {

/// Throws Error "[stage] origin: line 3, column 7: ...". Memory stays in proportion to the text.
nlohmann::ordered_json parse_json(std::string_view text, std::string_view origin,
                                  std::string_view stage, int most_depth = 64);

/// Reads and parses a file of at most `most_bytes`.
nlohmann::ordered_json read_json(const std::filesystem::path& file, std::string_view stage,
                                 uint64_t most_bytes = 100'000'000);

/// A fault that nlohmann would forgive: a byte order mark, which it skips, or a NUL, where it stops
/// and reports the end. Empty where there is none.
std::string json_forgiven_fault(std::string_view text);

/// nlohmann's own message without its prefix and position, printable and short.
std::string json_fault(std::string_view what);

}  // namespace moue
