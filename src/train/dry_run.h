// The torch half of estimate_training().
#pragma once

#include <filesystem>

#include "moue/checkpoint.h"
#include "moue/report.h"
#include "moue/train.h"

namespace moue {

Report estimate_run(const Checkpoint& model, const std::filesystem::path& out,
                    const TrainOptions& options);

}  // namespace moue
