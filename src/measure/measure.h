// The torch half of measure.
#pragma once

#include "moue/measure.h"

namespace moue {

Statistics measure_model(const Checkpoint& source, const Plan* plan, const MeasureOptions& options);

}  // namespace moue
