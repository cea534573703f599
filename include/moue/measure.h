// measure: runs a model on tokens and reports loads, margins, output scales, and with a plan its
// calibration.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "moue/checkpoint.h"
#include "moue/plan.h"
#include "moue/statistics.h"

namespace moue {

struct MeasureOptions {
  std::filesystem::path tokens;  ///< token file (raw .u16/.u32, llm.c, Megatron)
  std::string token_type;        ///< "u16", "u32", "" = by the file's name or header
  int64_t max_tokens = 100000;   ///< stops after this many; 0 = the whole file
  int64_t length = 256;          ///< tokens per window
  int64_t batch = 16;            ///< windows per forward pass
  double eps = 0.02;             ///< quantile of the calibration, per layer
  int64_t reach = 0;  ///< compares experts with those of so many MoE layers to either side; 0 = not
  std::string likeness = "output";      ///< what they are compared by: output | cka
  std::optional<int64_t> samples = {};  ///< tokens of a layer used for that; 2048, for cka 256
  int64_t replace = 0;  ///< trials with an expert answered for by its best and by a random donor
  std::string dtype = "float32";  ///< arithmetic: float32 | bfloat16
  std::string device = "cpu";     ///< cpu | cuda
  int64_t threads = 0;            ///< 0 = all cores
};

/// Needs LibTorch. `plan` may be null. Throws Error for tokens beyond the vocabulary, naming file
/// and position.
Statistics measure(const Checkpoint& source, const Plan* plan, const MeasureOptions& options);

}  // namespace moue
