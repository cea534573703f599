// What a running model shows: loads, margins, output scales, and the calibration of foreign slots.
#pragma once

#include <ATen/core/Tensor.h>

#include "moue/model.h"
#include "moue/statistics.h"

namespace moue {

/// Runs windows_NT1 (int64 [n, length + 1]) through a model whose foreign slots are closed. `plan`
/// (may be null) is the pool to calibrate for: a plan's, or the model's own. Formulas:
/// docs/method.md section 4.
Statistics collect_statistics(Model& model, const Pool* plan, double eps,
                              const at::Tensor& windows_NT1, int64_t batch);

}  // namespace moue
