// Forward and backward of one optimizer step over its micro-batches, and what the routers did in
// it.
#pragma once

#include "moue/model.h"
#include "train/balance.h"
#include "train/data.h"
#include "train/routing.h"

namespace moue {

struct StepSettings {
  int64_t micro_batch = 0;  ///< rows per forward
  bool detach_trajectory = false;
  double alpha = 0;        ///< of the balance loss
  double z_loss = 0;       ///< coefficient of the router z-loss
  bool recompute = false;  ///< blocks keep their inputs alone
  int64_t family = 0;      ///< experts per token: the families' own balance loss; 0 = ours
  bool running = false;    ///< balance on running counts of this step, not on `f`
  bool routing = false;    ///< look at single tokens, too
  PerSlot f;               ///< shares of the previous step, or uniform ones
  BalanceTarget target;
  Distill distill = {};
};

struct StepSums {
  double loss = 0;        ///< mean cross-entropy over the counted targets
  double divergence = 0;  ///< mean t^2 KL(p || q) over them, where there is a teacher
  RouterSums routers;
  at::Tensor routing;  ///< of RoutingSums, on the host; undefined where not asked for
};

/// Leaves the gradients of the whole batch in the parameters: of the mean cross-entropy (mixed
/// with the divergence from a teacher) plus the balance loss. Waits for the device once, at its end
/// (with `running`, once per micro-batch).
StepSums run_step(Model& model, const Batch& batch, const StepSettings& settings);

}  // namespace moue
