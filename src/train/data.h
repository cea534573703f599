// Rows of training and held-out tokens as tensors, in an order that is a function of the step
// alone.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

#include "moue/train.h"
#include "tokens/documents.h"
#include "tokens/order.h"
#include "tokens/tokens.h"
#include "tokens/turns.h"

namespace moue {

/// The rows of one optimizer step, on the CPU.
struct Batch {
  at::Tensor rows_BT1;      ///< int64 [B, length + 1]
  at::Tensor mask_BT;       ///< bool, which targets count; undefined = all
  int64_t num_targets = 0;  ///< that count
};

class TrainData {
 public:
  /// Opens the files and checks their tokens against the vocabulary. Throws Error naming file and
  /// position, for a file without one full row, and for one without documents where rows are to end
  /// with them.
  TrainData(const TrainOptions& options, int64_t vocabulary);

  Batch batch(int64_t step) const;
  /// Rows read before `step` over the rows there are.
  double epochs(int64_t step) const;
  /// The first windows in the order of the files, int64 [n, length + 1]: sources in turns, rows
  /// that run on across documents. At most `most`, and one at least.
  at::Tensor first_windows(int64_t most) const;
  /// How many tokens there are and what the first of them are: enough to notice other files.
  std::string identity() const;
  /// A log line for each source: its share, its passes in so many steps, its documents.
  void describe(int64_t steps) const;

 private:
  struct Source {
    TokenFile tokens;
    DataOrder order;
    std::optional<DocumentRows> documents;  ///< where rows end with them
  };
  void fill(const Turns::Turn& turn, int64_t* row, uint8_t* mask) const;

  int64_t length_, batch_;
  Turns turns_;
  std::vector<Source> sources_;
  bool masked_ = false;
};

/// The files that a run reads: those of `data`, else `tokens` alone.
std::vector<TrainSource> sources_of(const TrainOptions& options);

}  // namespace moue
