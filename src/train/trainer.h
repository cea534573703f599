// Trainer: one run in memory: model, optimizer, schedule, data and state, step by step.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>

#include "model/opening.h"
#include "moue/checkpoint.h"
#include "moue/model.h"
#include "moue/train.h"
#include "train/average.h"
#include "train/checkpoint.h"
#include "train/data.h"
#include "train/journal.h"
#include "train/optimizer.h"
#include "train/schedule.h"
#include "train/state.h"
#include "train/step.h"

namespace moue {

class Trainer {
 public:
  /// Checks tokens and model; writes nothing. `source` is the model to be trained; `weights` where
  /// its weights come from: itself, or the step to go on from, which restore() then completes.
  Trainer(const Checkpoint& source, const Checkpoint& weights, const TrainOptions& options);

  /// The first stage, for a closed pool that was never calibrated.
  void calibrate_if_new();
  /// What opening everything would do to a closed pool, on held-out tokens (else on those of the
  /// calibration); nothing where nothing opens.
  std::optional<OpeningEffect> opening_effect();
  /// Masters, moments and state of the step the model was opened from.
  void restore(const std::filesystem::path& step);
  /// For tests: called between backward and the judgement of the step; may change what it sees.
  std::function<void(int64_t step, std::vector<Parameter>& parameters, double& loss)> tamper;

  /// One optimizer step: forward, backward, update or skip, pool bias.
  StepRecord step();
  bool done() const { return state_.step >= options_.steps; }
  /// Held-out loss as the model is now; nothing without held-out tokens.
  std::optional<HeldOut> evaluate_held_out();
  /// What a finished pool looks like: every slot open, or relocked.
  void finish_pool();
  /// Throws Error where `out` has no room for one step.
  void require_room(const std::filesystem::path& out) const;
  /// Writes out/step-XXXXXX and returns it.
  std::filesystem::path save(const std::filesystem::path& out, const std::string& recipe) const;
  /// Copies the run as it is; what is returned writes that, in whichever thread, while steps go on.
  /// Throws Error where `out` has no room.
  std::function<std::filesystem::path()> save_later(const std::filesystem::path& out,
                                                    const std::string& recipe) const;

  const TrainState& state() const { return state_; }
  TrainState& state() { return state_; }
  Model& model() { return *model_; }
  const Optimizer& optimizer() const { return *optimizer_; }
  Model* teacher() { return teacher_.get(); }
  const TrainSchedule& schedule() const { return *schedule_; }
  Stage stage() const { return schedule_->stage(state_.step); }

 private:
  void start();
  bool opens_later() const;
  void begin_opening();
  Moving moving() const;
  StepSettings settings() const;
  void look(const StepSums& sums, StepRecord& record) const;
  void start_average();
  void set_moving();
  void set_slots();
  void judge(StepRecord& record);
  void set_visibility(const Visibility& visibility);
  void update(const RouterShares& shares, StepRecord& record);
  void move_pool_bias(const PerSlot& f);
  StepImage image() const;

  Checkpoint source_;
  TrainOptions options_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<TrainData> data_;
  at::Tensor held_out_;       ///< windows; undefined without held-out tokens
  at::Tensor held_out_mask_;  ///< which of their targets count; undefined = all
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<Average> average_;  ///< where weights are averaged
  std::unique_ptr<StepWriter> writer_;
  std::unique_ptr<Model> teacher_;  ///< where one is distilled from
  std::unique_ptr<TrainSchedule> schedule_;
  TrainState state_;
  BalanceTarget target_;
  bool calibrated_ = false;
  int64_t num_moving_ = -1;  ///< what the model was told last
};

}  // namespace moue
