// The torch half of train().
#pragma once

#include <filesystem>

#include "moue/train.h"

namespace moue {

Report train_model(const std::filesystem::path& model, const std::filesystem::path& out,
                   const TrainOptions& options);

}  // namespace moue
