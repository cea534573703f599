// What one forward and backward pass holds in memory besides weights and gradients: by arithmetic.
//
// Legend: T tokens of a pass, D model width, F expert width, N experts of a layer, S its slots, K
// experts per token, V vocabulary.
#pragma once

#include <cstdint>

#include "moue/pool.h"
#include "moue/spec.h"

namespace moue {

struct PassShape {
  int64_t rows = 0;    ///< of a forward pass
  int64_t length = 0;  ///< inputs per row
  double element = 4;  ///< bytes of a number of the arithmetic
  bool recompute = false;
  bool z_loss = false;
  double tokens() const { return static_cast<double>(rows) * static_cast<double>(length); }
};

/// Bytes.
struct PassBytes {
  double kept = 0;    ///< from a layer's forward to its backward, of all layers
  double work = 0;    ///< comes and goes: the most that one block's backward has at a time
  double logits = 0;  ///< one chunk of them, and what the head's own gradient waits in
};

/// `trains_head`: its gradient is made on the way forward.
PassBytes pass_bytes(const ModelSpec& spec, const Pool& pool, bool is_moue, const PassShape& shape,
                     bool trains_head);

/// Operations (a multiplication and an addition are two) of one token.
struct TokenWork {
  double forward = 0;  ///< all layers and the head
  double inputs = 0;   ///< on the way back: gradients of inputs
  double weights = 0;  ///< gradients of weights, where all train
  double experts = 0;  ///< of `weights`, those of the routed experts
};
TokenWork token_work(const ModelSpec& spec, const Pool& pool, bool is_moue, int64_t length);

}  // namespace moue
