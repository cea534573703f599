// The records of a run as curves of TensorBoard.
#pragma once

#include <vector>

#include "train/events.h"
#include "train/journal.h"

namespace moue {

/// Of a logging step: a curve for each number, and for each layer where there is one a layer.
std::vector<Scalar> scalars_of(const StepRecord& record);
std::vector<Scalar> scalars_of(const HeldOut& held_out);

}  // namespace moue
