// Directories of one model in several layouts, and what must be equal between them.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "moue/convert.h"

namespace moue::test {

/// Every folder of tests/golden/families.
std::vector<std::string> family_folders();

/// What a tensor is, bytes included: "F32 [5, 24] 4f1c...".
using TensorDigests = std::map<std::string, std::string>;
TensorDigests digests_of(const std::filesystem::path& directory);
/// Those that are not the pool's.
TensorDigests base_digests_of(const std::filesystem::path& directory);

/// A plan of half_staggered, or of an expansion by as many experts.
Plan plan_for(const Checkpoint& source, int64_t new_experts = 0);

/// Ordinary to MoUE, with plan_for's plan.
Report to_moue(const std::filesystem::path& from, const std::filesystem::path& to,
               const ConvertOptions& options = {}, int64_t new_experts = 0);
/// Without a plan: another layout, a cut.
Report relayout(const std::filesystem::path& from, const std::filesystem::path& to,
                const ConvertOptions& options);
ConvertOptions layout(const std::string& name);

}  // namespace moue::test
