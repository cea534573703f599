// AdamW over a model's parameters: groups, stages, clipping by the global norm, steps that are left
// out.
#pragma once

#include <vector>

#include "moue/model.h"

namespace moue {

struct AdamwOptions {
  double weight_decay = 0.1;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double clip = 1.0;               ///< largest global norm of the gradient; 0 = off
  double new_lr_multiplier = 1.0;  ///< on the tensors under "moue."
};

/// Which parameters move: the warm-up moves the trajectory alone, `trajectory = off` all others.
struct Moving {
  bool trajectory = true;  ///< gamma, k, q, lambda
  bool others = true;
  bool operator()(const Parameter& parameter) const;
};

class Optimizer {
 public:
  /// float32 moments beside the masters of `parameters`, which must outlive it.
  Optimizer(std::vector<Parameter>& parameters, const AdamwOptions& options);

  /// Norm over the gradients of all moving parameters: float64, the same for any number of threads.
  double gradient_norm(Moving moving) const;

  /// One step of the moving parameters; `norm` is gradient_norm(moving). A foreign row decays only
  /// where `visibility` opens its slot. Values are refreshed by the model.
  void update(double lr, double norm, Moving moving, const Visibility& visibility);

  struct Moments {
    at::Tensor first;
    at::Tensor second;
    int64_t updates = 0;  ///< t of the bias correction: frozen stages do not count
  };
  std::vector<Moments>& moments() { return moments_; }  ///< in the order of the parameters
  const std::vector<Moments>& moments() const { return moments_; }

 private:
  std::vector<Parameter>& parameters_;
  AdamwOptions options_;
  std::vector<Moments> moments_;
};

/// Steps that were left out because loss or gradient was not finite.
struct Skips {
  static constexpr int64_t kMost = 20;  ///< in a row; then the run stops
  int64_t total = 0;
  int64_t in_a_row = 0;

  void count(bool skipped) {
    total += skipped;
    in_a_row = skipped ? in_a_row + 1 : 0;
  }
  bool hopeless() const { return in_a_row >= kMost; }
};

}  // namespace moue
