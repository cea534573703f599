// What changes with the step: learning rate, balance coefficient, visibility, and the stage they
// belong to.
#pragma once

#include <string_view>

#include "moue/pool.h"
#include "moue/train.h"

namespace moue {

/// Calibrate comes before step 0; an ordinary model and a MoUE that is already open are Full from
/// the start.
enum class Stage : uint8_t { Calibrate, Warmup, Open, Full };
std::string_view to_string(Stage stage);

/// Steps count from 0: step s is the one that makes update number s + 1.
class TrainSchedule {
 public:
  /// `opening`: the pool starts closed and this run opens it.
  TrainSchedule(const TrainOptions& options, const Pool& pool, bool opening);

  double lr(
      int64_t step) const;  ///< warm-up from lr / warmup, then cosine to min_lr * lr or constant
  double alpha(int64_t step) const;  ///< warm-up from alpha / alpha_warmup, then constant
  Stage stage(int64_t step) const;
  bool opening() const { return opening_; }
  /// Visibility of step `step` of a pool that opens; fully open from t_e on.
  Visibility visibility(int64_t step) const;
  /// The pool's selection bias moves while slots open, and stands still at the end of the run.
  bool bias_moves(int64_t step) const;

  int64_t opens_at() const { return start_; }  ///< t_s
  int64_t open_at() const { return end_; }     ///< t_e

 private:
  TrainOptions options_;
  Pool pool_;
  bool opening_;
  int64_t warmup_ = 0;
  int64_t alpha_warmup_ = 0;
  int64_t start_ = 0;
  int64_t end_ = 0;
};

/// The default of `warmup` and `alpha_warmup`: 2 % of the steps.
int64_t default_warmup(int64_t steps);

}  // namespace moue
