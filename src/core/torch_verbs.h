// The verbs that need LibTorch, as libmoue_torch.so hands them to libmoue.so: one C function, one
// table.
#pragma once

#include "core/torch_library.h"

// Types are only declared: this header stands below all verbs, so that each entry.cpp may include
// it.
#include <filesystem>

namespace moue {

class Checkpoint;
struct MeasureOptions;
struct Plan;
struct Report;
struct Statistics;
struct TrainOptions;
struct ValidateOptions;

/// Pointers to the torch halves; exceptions pass through them (both libraries share one runtime).
struct TorchVerbs {
  Statistics (*measure)(const Checkpoint& source, const Plan* plan, const MeasureOptions& options);
  Report (*train)(const std::filesystem::path& model, const std::filesystem::path& out,
                  const TrainOptions& options);
  Report (*estimate_training)(const Checkpoint& model, const std::filesystem::path& out,
                              const TrainOptions& options);
  /// Appends the checks of G1 (where `equality`; otherwise the report already says why not), G2 and
  /// G3. Both checkpoints have been claimed, the result's pool tensors have the right shapes and
  /// finite values.
  void (*validate_model)(const Checkpoint& original, const Checkpoint& result,
                         const ValidateOptions& options, bool equality, Report& report);
};

/// The type and the name of the one function libmoue_torch.so exports:
///   extern "C" const moue::TorchVerbs* moue_torch_verbs();
using TorchVerbsFunction = const TorchVerbs* (*)();

/// The table, its library loaded when first asked for. Throws Error saying how to get it where it
/// is missing.
inline const TorchVerbs& torch_verbs() {
  return *reinterpret_cast<TorchVerbsFunction>(torch_symbol("moue_torch_verbs"))();
}

}  // namespace moue
