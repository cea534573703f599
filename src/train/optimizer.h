// AdamW over a model's parameters: groups, stages, clipping by the global norm.
#pragma once

#include <vector>

#include "moue/model.h"
#include "train/groups.h"

namespace moue {

struct AdamwOptions {
  double weight_decay = 0.1;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double clip = 1.0;                    ///< largest global norm of the gradient; 0 = off
  double new_lr_multiplier = 1.0;       ///< on the tensors under "moue."
  at::ScalarType moments = at::kFloat;  ///< kFloat or kBFloat16, the latter rounded stochastically
  uint64_t seed = 0;                    ///< of the rounding
};

/// Which parameters move: the warm-up moves the trajectory alone, `trajectory = off` all others,
/// and groups begin at their step.
struct Moving {
  bool trajectory = true;  ///< gamma, k, q, lambda
  bool others = true;
  int64_t step = INT64_MAX;
  bool operator()(const Parameter& parameter) const;
};

class Optimizer {
 public:
  /// Moments beside the weights of `parameters`, which must outlive it; none for what is frozen.
  /// `groups` as groups_of() makes them; empty = one group of all.
  Optimizer(std::vector<Parameter>& parameters, const AdamwOptions& options,
            std::vector<ParameterGroup> groups = {});

  bool moves(const Parameter& parameter, Moving moving) const;

  /// Norm over the gradients of all moving parameters: float64, the same for any number of threads.
  double gradient_norm(Moving moving) const;

  /// One step of the moving parameters; `norm` is gradient_norm(moving). A foreign row decays only
  /// where `visibility` opens its slot. Masters move, and the model refreshes its values from them;
  /// without masters the values do. What is bfloat16 is rounded by bits of seed, moving.step,
  /// parameter and element.
  void update(double lr, double norm, Moving moving, const Visibility& visibility);

  struct Moments {
    at::Tensor first;
    at::Tensor second;
    int64_t updates = 0;  ///< t of the bias correction: steps at which it stood still do not count
  };
  std::vector<Moments>& moments() { return moments_; }  ///< in the order of the parameters
  const std::vector<Moments>& moments() const { return moments_; }

 private:
  struct Step {
    double lr, scale;
    int64_t number;
    const Visibility& visibility;
  };
  void update(size_t index, const GroupPiece& piece, int64_t offset, const Step& step);

  std::vector<Parameter>& parameters_;
  AdamwOptions options_;
  std::vector<ParameterGroup> groups_;  ///< in the order of the parameters
  std::vector<Moments> moments_;
};

}  // namespace moue
