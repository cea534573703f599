// The teacher of a distillation: a model that stands still.
#pragma once

#include <memory>
#include <string>

#include "moue/model.h"
#include "moue/train.h"

namespace moue {

/// options.distill_from, else `source` itself; null without distillation. What `student` holds
/// frozen and the teacher has alike is in memory once. Throws Error for another vocabulary.
std::unique_ptr<Model> open_teacher(const Checkpoint& source, Model& student,
                                    const TrainOptions& options);

/// Which model teaches, for a resumed run to compare: "none", "itself", or the first letters of its
/// fingerprint.
std::string teacher_identity(const TrainOptions& options);

}  // namespace moue
