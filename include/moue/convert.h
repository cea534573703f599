// convert: writes the upgraded checkpoint without moving what need not move.
#pragma once

#include <filesystem>
#include <string>

#include "moue/checkpoint.h"
#include "moue/plan.h"
#include "moue/report.h"

namespace moue {

struct ConvertOptions {
  std::string layout =
      "linked";        ///< the source's shards (reflink, hard link, symlink, copy) + one new file
  int64_t seed = 0;    ///< draws the trajectory keys and queries
  std::string recipe;  ///< resolved recipe, stored in the manifest
};

/// Writes `out` whole or not at all; the source is only read. `statistics` (may be null) gives beta
/// and a. Throws Error where `out` exists, the plan is of another source, or the disk is full. The
/// report says how each file was linked, what was written and how to go back.
Report convert(const Checkpoint& source, const Plan& plan, const Statistics* statistics,
               const std::filesystem::path& out, const ConvertOptions& options);

}  // namespace moue
