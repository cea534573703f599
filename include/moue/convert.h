// convert: writes the upgraded checkpoint without moving what need not move; or a model in another
// layout.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "moue/checkpoint.h"
#include "moue/plan.h"
#include "moue/report.h"

namespace moue {

struct ConvertOptions {
  /// "linked": the source's shards (reflink, hard link, symlink, copy) and new files for new
  /// tensors. "packed": everything written anew, in reading order. "export": the same as an
  /// ordinary model of the source's family. "" = linked; export where `layers` cuts.
  std::string layout;
  std::string dtype;   ///< float32 | bfloat16 | float16 for float weights; "" = as in the source
  std::string layers;  ///< "2:6" keeps layers 2 to 5 of an ordinary model; "" = all
  uint64_t shard_size = 5'000'000'000;  ///< bytes of a file, of one tensor at least
  uint64_t memory = uint64_t{1} << 30;  ///< of all buffers together
  int64_t threads = 0;                  ///< 0 = two for each core
  bool hash = false;                    ///< SHA-256 of the source's weight files, too
  bool dry_run = false;                 ///< says what would be done; writes nothing
  int64_t seed = 0;                     ///< draws the trajectory keys and queries
  std::string base_model;               ///< the source's name on the Hub, for the model card
  std::string recipe;                   ///< resolved recipe, stored in the manifest
};

/// Whether these options make a MoUE of an ordinary source, for which it takes a plan.
bool needs_plan(const Checkpoint& source, const ConvertOptions& options);

/// Writes `out` whole or not at all; the source is only read. `statistics` (may be null) gives beta
/// and a. Throws Error where `out` exists, the plan is of another source, or the disk is full. The
/// report says how each file was made, what was written and how to go back.
Report convert(const Checkpoint& source, const Plan& plan, const Statistics* statistics,
               const std::filesystem::path& out, const ConvertOptions& options);

/// The same without a plan: a MoUE in another layout, an ordinary model written anew or cut. Throws
/// Error where an ordinary model cannot compute what the MoUE does, naming every layer.
Report convert(const Checkpoint& source, const std::filesystem::path& out,
               const ConvertOptions& options);

/// The MoUE that a plan makes of a source: names, shapes and config without files, for what reads
/// headers alone.
Checkpoint planned_headers(const Checkpoint& source, const Plan& plan);

}  // namespace moue
