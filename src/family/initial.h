// What a model holds before it was ever trained: every tensor of a family, and what it starts as.
#pragma once

#include "moue/family.h"

namespace moue {

enum class Start : uint8_t { Normal, Zero, One };

struct InitialTensor {
  std::string name;
  std::vector<int64_t> shape;
  Start start = Start::Normal;
  bool float32 = false;  ///< whatever the other weights are
};

/// In reading order, in the first of the family's forms that packs nothing; what may be missing is
/// left out. Starts are those of transformers 5: normal numbers of one deviation for every matrix,
/// the router's bias and sinks, one for gains, zero for other biases and the correction of the
/// choice; no family of converters/ scales what it adds to the residual differently.
std::vector<InitialTensor> initial_tensors(const Family& family, const ModelSpec& spec);

}  // namespace moue
