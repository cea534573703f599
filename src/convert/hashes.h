// SHA-256 of whole files, several at once.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace moue {

/// Of each file, in the order given, with progress; `threads` as in ConvertOptions, 1 MiB each.
/// Throws Interrupted where a stop was asked for.
std::vector<std::string> hashes_of(const std::vector<std::filesystem::path>& files,
                                   int64_t threads);

}  // namespace moue
