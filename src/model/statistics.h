// What a running model shows: loads, margins, output scales, and the calibration of foreign slots.
#pragma once

#include <ATen/core/Tensor.h>

#include "moue/model.h"
#include "moue/statistics.h"

namespace moue {

/// Runs windows_NT1 (int64 [n, length + 1]) through a model whose foreign slots are closed. `slots`
/// (may be null) are the slot lists to calibrate for: a plan's, or the model's own. Formulas:
/// docs/method.md section 4.
Statistics collect_statistics(Model& model, const Slots* slots, double eps,
                              const at::Tensor& windows_NT1, int64_t batch);

}  // namespace moue
