// Memory that runs out while a model trains: what it was for, and which setting takes less.
#pragma once

#include <functional>
#include <string>

#include "moue/train.h"

namespace moue {

/// Runs `work`. Where the CPU's or the device's memory runs out in it, throws Error "[train] out of
/// memory for 1.5 GiB while DOING; ADVICE".
void within_memory(const std::string& doing, const std::string& advice,
                   const std::function<void()>& work);

/// Settings of a run that make a forward and backward pass smaller and are not yet in use.
std::string less_memory_in_steps(const TrainOptions& settled);
/// The same for weights, gradients and moments.
std::string less_memory_in_weights(const TrainOptions& settled);

}  // namespace moue
