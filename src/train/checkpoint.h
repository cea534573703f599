// A step on disk: a loadable model in the source's dtypes, and training/ with all that a resumed
// run needs.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "moue/checkpoint.h"
#include "moue/model.h"
#include "train/average.h"
#include "train/optimizer.h"
#include "train/state.h"

namespace moue {

/// What a step is written from. `source` gives names, dtypes, order, config and the other files.
struct StepWriter {
  Model& model;
  const Checkpoint& source;
  const Optimizer& optimizer;
  const Average* average;  ///< may be null
  std::string recipe;

  /// Bytes of one step.
  uint64_t bytes() const;
  /// Writes out/step-XXXXXX whole or not at all, then points out/latest to it. A step that is there
  /// already (a run that resumed before it) is replaced. `pool` is what the config says of it
  /// (state, calibrated).
  std::filesystem::path write(const std::filesystem::path& out, const TrainState& state,
                              const Pool& pool) const;
};

inline constexpr const char* kTrainingFolder = "training";  ///< inside a step

/// True where something is trained and the tensors on disk hold less than its float32 master.
bool needs_master(const Parameter& parameter);

/// "step-000100".
std::string step_name(int64_t step);
/// The directory that out/latest names; nothing where no step was saved. Throws Error where it
/// names none.
std::optional<std::filesystem::path> latest_step(const std::filesystem::path& out);
/// Removes all steps in `out` but the newest `keep_last` (0 = none is removed) and those that are a
/// multiple of `keep_every` (0 = no others).
void prune_steps(const std::filesystem::path& out, int64_t keep_last, int64_t keep_every);
/// Throws Error where files of the step are missing or changed.
void verify_step(const std::filesystem::path& step);
/// Masters, moments and state; the model itself was opened from the step. Throws Error where the
/// run began with other options than `now`.
TrainState restore_training(const std::filesystem::path& step, const Fixed& now, Model& model,
                            Optimizer& optimizer, Average* average);

}  // namespace moue
