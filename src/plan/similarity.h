// How alike experts of different layers are, and the slots that follow from it.
#pragma once

#include "moue/plan.h"

namespace moue {

/// Scores of all experts of layers at most `reach` apart on `samples` Gaussian inputs, the same for
/// every expert, each behind its own layer's norm. Cost: three products of samples x D x F an
/// expert and one reading of the experts' bytes; memory: reach + 1 layers of N x samples^2 / 2
/// floats, and for each core 3 samples x F.
Similarity gaussian_similarity(const Checkpoint& source, const Claims& claims,
                               const ModelSpec& spec, int64_t reach, int64_t samples);

/// Each layer's own experts and its window - N best donors, best first, ties by lower number.
/// Throws Error naming layers with fewer candidates.
Slots slots_by_score(const Topology& topology, const Similarity& similarity);

/// Mean, least and greatest score of the foreign slots.
PlanScores scores_of(const Slots& slots, const Similarity& similarity);

/// Score of physical expert p, or of a new expert's donor, in a layer: 1 for an own one, kUnknown
/// beyond the reach.
double score_at(const Similarity& similarity, const Pool& pool, int64_t layer, int32_t physical);

}  // namespace moue
