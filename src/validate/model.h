// The gates that run models: G1 equality, G2 recorded logits, G3 text.
#pragma once

#include "moue/model.h"
#include "moue/validate.h"

namespace moue {

/// Appends G1 (where `equality`), G2 and G3 to the report.
void validate_model(const Checkpoint& original, const Checkpoint& result,
                    const ValidateOptions& options, bool equality, Report& report);

/// How the gates open models and what they run.
struct GateRun {
  const Checkpoint& original;
  const Checkpoint& result;
  const ValidateOptions& options;
  ModelOptions how;        ///< dtype, device, the weights' ceiling
  at::Tensor windows_NT1;  ///< int64 [n, length + 1]
};

/// Logits, chosen slots and gates of every layer, bit for bit as floats, over the first 512 tokens.
void equality_gate(const GateRun& run, Report& report);
/// The result against `tokens` and `logits` recorded elsewhere.
void reference_gate(const GateRun& run, Report& report);
/// Loss, perplexity, KL, top-1 and routing against the source, with error bars.
void text_gate(const GateRun& run, Report& report);

}  // namespace moue
