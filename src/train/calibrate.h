// The first stage of an upgrade: beta and a of foreign slots from what the closed model does on
// tokens.
#pragma once

#include "moue/model.h"
#include "moue/train.h"

namespace moue {

/// Measures the closed model on windows [n, length + 1] of tokens and sets its router biases and
/// scales.
void calibrate(Model& model, const at::Tensor& windows_NT1, const TrainOptions& options);

/// Foreign rows, their biases and new experts as their home layers have them now.
void start_foreign(Model& model);

}  // namespace moue
