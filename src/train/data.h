// Rows of training and held-out tokens as tensors, in an order that is a function of the step
// alone.
#pragma once

#include <ATen/core/Tensor.h>

#include "moue/train.h"
#include "tokens/order.h"
#include "tokens/tokens.h"

namespace moue {

/// The rows of one optimizer step, on the CPU.
struct Batch {
  at::Tensor rows_BT1;      ///< int64 [B, length + 1]
  at::Tensor mask_BT;       ///< bool, which targets count; undefined = all
  int64_t num_targets = 0;  ///< that count
};

class TrainData {
 public:
  /// Opens the file and checks its tokens against the vocabulary. Throws Error naming file and
  /// position, and for a file without one full row.
  TrainData(const TrainOptions& options, int64_t vocabulary);

  Batch batch(int64_t step) const;
  double epochs(int64_t step) const { return order_.epochs(step); }
  const TokenFile& tokens() const { return tokens_; }

 private:
  TokenFile tokens_;
  DataOrder order_;
};

}  // namespace moue
