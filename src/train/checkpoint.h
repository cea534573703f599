// A step on disk: a loadable model in the source's dtypes, and training/ with all that a resumed
// run needs.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "moue/checkpoint.h"
#include "moue/model.h"
#include "train/average.h"
#include "train/optimizer.h"
#include "train/state.h"

namespace moue {

/// What changes from step to step and goes into one on disk.
struct StepImage {
  std::vector<at::Tensor> weights;          ///< of each parameter: weights_of
  std::vector<Optimizer::Moments> moments;  ///< of each parameter
  std::vector<at::Tensor> averages;         ///< of each parameter; empty where none are kept
  Visibility visibility;
  at::Tensor pool_bias;
  std::vector<at::Tensor> corrections;  ///< of each MoE layer, undefined where there is none
  TrainState state;
  Pool pool;  ///< what the config says of it: state, calibrated
};
/// The run's own tensors; nothing is copied.
StepImage image_of(Model& model, const Optimizer& optimizer, const Average* average,
                   const TrainState& state, const Pool& pool);
/// The same numbers on the host, untouched by the steps that follow: as many bytes as weights,
/// moments and averages have that are trained. From a GPU into pinned memory.
StepImage copied(const StepImage& image, const std::vector<Parameter>& parameters);

/// Writes steps of one run. `source` gives names, dtypes, order, config and the other files.
class StepWriter {
 public:
  /// `model` must outlive it; of that only what no step changes is used.
  StepWriter(Model& model, const Checkpoint& source);

  /// Bytes of one step.
  uint64_t bytes(const StepImage& image) const;
  /// Writes out/step-XXXXXX whole or not at all, then points out/latest to it, and returns it. A
  /// step that is there already (a run that resumed before it) is replaced. Any thread may call it,
  /// one at a time.
  std::filesystem::path write(const std::filesystem::path& out, const StepImage& image,
                              const std::string& recipe) const;

 private:
  Model& model_;
  Checkpoint source_;
  /// Of each tensor of the source, the name it is written under; "" = not written.
  std::vector<std::string> names_;
};

inline constexpr const char* kTrainingFolder = "training";  ///< inside a step

/// True where something is trained and the tensors on disk hold less than its weights in memory.
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
