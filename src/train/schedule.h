// What changes with the step: learning rate, balance coefficient, visibility, and the stage they
// belong to.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "moue/pool.h"
#include "moue/train.h"

namespace moue {

/// Calibrate comes before step 0; an ordinary model and a MoUE that is already open are Full from
/// the start.
enum class Stage : uint8_t { Calibrate, Warmup, Open, Full, Relock };
std::string_view to_string(Stage stage);

/// Steps [from, until) of a stage.
struct StagePlan {
  std::string name;
  int64_t from = 0;
  int64_t until = 0;
};

/// Steps count from 0: step s is the one that makes update number s + 1.
class TrainSchedule {
 public:
  /// `opening`: the pool starts closed and this run opens it.
  TrainSchedule(const TrainOptions& options, const Pool& pool, bool opening);

  /// Warm-up from lr / warmup, then the curve; a second warm-up where the opening begins.
  double lr(int64_t step) const;
  double alpha(int64_t step) const;  ///< warm-up from alpha / alpha_warmup, then constant
  Stage stage(int64_t step) const;
  bool opening() const { return opening_; }
  bool relocking() const { return relocking_; }
  /// True where this run changes how far slots are open.
  bool moves_slots() const { return opening_ || relocking_; }
  /// Visibility of step `step` of such a pool; fully open from t_e on, until all but the `kept`
  /// slots (kept_slots) close.
  Visibility visibility(int64_t step, const Visibility& kept = {}) const;
  /// The pool's selection bias moves while slots open, and stands still at the end of the run.
  bool bias_moves(int64_t step) const;

  /// Stages of the whole run, in order, without empty ones.
  std::vector<StagePlan> plan() const;

  int64_t opens_at() const { return start_; }  ///< t_s
  int64_t open_at() const { return end_; }     ///< t_e
  int64_t relocks_at() const { return relock_start_; }
  int64_t relocked_at() const { return relock_end_; }

 private:
  double decayed(int64_t step) const;
  double rewarmed(int64_t step) const;

  TrainOptions options_;
  Pool pool_;
  bool opening_;
  bool relocking_;
  int64_t warmup_ = 0;
  int64_t alpha_warmup_ = 0;
  int64_t start_ = 0;
  int64_t end_ = 0;
  int64_t relock_start_ = 0;
  int64_t relock_end_ = 0;
};

/// Steps, counted from 1, whose record has the routers' numbers too: the first, the last, and those
/// between them that log_every divides.
bool logs(const TrainOptions& options, int64_t step);
/// At most kLoads of the logging steps, the first and the last among them.
bool shows_load(const TrainOptions& options, int64_t step);
inline constexpr int64_t kLoads = 22;

/// The default of `warmup` and `alpha_warmup`: 2 % of the steps.
int64_t default_warmup(int64_t steps);

}  // namespace moue
