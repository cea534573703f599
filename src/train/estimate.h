// What a run takes, from config and headers alone: memory by part, work, disk.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "moue/checkpoint.h"
#include "moue/family.h"
#include "moue/pool.h"
#include "moue/train.h"

namespace moue {

/// Something that is held in memory at the peak of a step.
struct MemoryPart {
  std::string key, title;
  double bytes = 0;
  std::string settings;  ///< which change it
};

struct Estimate {
  std::vector<MemoryPart> memory;
  double step_work = 0;      ///< operations of an optimizer step
  double held_out_work = 0;  ///< of one held-out loss
  double checkpoint = 0;     ///< bytes of a saved step
  double largest = 0;  ///< on the host of a GPU: the largest tensor while loaded, or a step's copy
  int64_t parameters = 0, trained = 0;
  double peak() const;
};

/// A model of which only the headers are needed, and what its run would take under options.
class Estimator {
 public:
  /// Borrows the checkpoint.
  explicit Estimator(const Checkpoint& model);

  /// `settled` options.
  Estimate estimate(const TrainOptions& settled) const;
  /// A pattern that all tensors of routed experts match and no other; "" where there is none.
  std::string experts_pattern() const;
  const ModelSpec& spec() const { return spec_; }
  const Pool& pool() const { return pool_; }

 private:
  const Checkpoint& model_;
  const Family& family_;
  ModelSpec spec_;
  bool is_moue_;
  Pool pool_;
  Claims claims_;
};

}  // namespace moue
