// What the routers did with single tokens in one optimizer step: entropy, margin, coherence through
// depth, the trajectory's part (docs/method.md section 9).
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "moue/model.h"
#include "train/balance.h"

namespace moue {

/// Means over the tokens of a step. "Open" slots are those with a visibility above 0.
struct RoutingReport {
  std::vector<double> entropy;  ///< [L] nats, of the shares of the scores of open slots
  /// [L] by how much the last chosen open slot beats the first that is not, pool bias and all; in
  /// units of selection. NaN where every candidate is chosen.
  std::vector<double> margin;
  std::vector<double> bonus;   ///< [L] mean |< q, gamma shat >| over open slots; 0 without a state
  std::vector<double> spread;  ///< [L] root of the mean variance of a token's open logits
  std::vector<double> reuse;   ///< [L - 1] mean |S_l n S_{l+1}| / K, as physical experts
  std::vector<double> reuse_chance;  ///< [L - 1] the same, had both layers drawn by their loads
  double distinct = 0;               ///< physical experts of a token over all layers / (K L)
  std::vector<double> foreign;       ///< [L] share of choices
  double utilisation = 0;  ///< experts that any token chose / min(exposed experts, choices)
};

/// Sums over tokens, float64, where the model runs: nothing waits for the device.
class RoutingSums {
 public:
  explicit RoutingSums(Model& model);
  /// To be called with each layer of each pass, in order (Pass::observer).
  void observe(const MoeView& view);
  at::Tensor sums() const { return sums_; }  ///< float64 [kKinds, L]

 private:
  at::Tensor open_of(const at::Tensor& values_TS, int64_t layer) const;
  at::Tensor margin(const MoeView& view) const;

  Model& model_;
  std::vector<at::Tensor> physical_;   ///< int32 [S] of each layer
  std::vector<at::Tensor> open_;       ///< int64, open slots; undefined = all
  std::vector<at::Tensor> chosen_TK_;  ///< of the layers of this pass, as physical experts
  at::Tensor sums_;
};

/// `sums`: of RoutingSums, on the host; `routers`: of the same step.
RoutingReport routing_report(const at::Tensor& sums, const Pool& pool, const BalanceTarget& target,
                             const RouterSums& routers);

}  // namespace moue
