// What changes with the step.
#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "pool/schedule.h"

namespace moue {
namespace {

constexpr double kWarmupShare = 0.02;      // of the steps
constexpr double kBiasFrozenShare = 0.05;  // of the steps, at the end

double ramp(int64_t step, int64_t warmup) {
  return warmup > 0 ? std::min(1.0, static_cast<double>(step + 1) / static_cast<double>(warmup))
                    : 1.0;
}

int64_t share_of(double share, int64_t steps) {
  return std::llround(share * static_cast<double>(steps));
}

}  // namespace

int64_t default_warmup(int64_t steps) { return share_of(kWarmupShare, steps); }

bool logs(const TrainOptions& options, int64_t step) {
  return step == 1 || step == options.steps || step % options.log_every == 0;
}

bool shows_load(const TrainOptions& options, int64_t step) {
  const int64_t most = (kLoads - 2) * options.log_every;
  const int64_t every = (options.steps + most - 1) / most * options.log_every;
  return step == 1 || step == options.steps || step % every == 0;
}

std::string_view to_string(Stage stage) {
  switch (stage) {
    case Stage::Calibrate:
      return "calibrate";
    case Stage::Warmup:
      return "warmup";
    case Stage::Open:
      return "open";
    case Stage::Relock:
      return "relock";
    case Stage::Full:
      break;
  }
  return "full";
}

TrainSchedule::TrainSchedule(const TrainOptions& options, const Pool& pool, bool opening)
    : options_(options),
      pool_(pool),
      opening_(opening),
      relocking_(options.relock.from < 1 && !options.control &&
                 (opening || pool.state == PoolState::Trained)),
      warmup_(options.warmup.value_or(default_warmup(options.steps))),
      alpha_warmup_(options.alpha_warmup.value_or(default_warmup(options.steps))),
      start_(share_of(options.open.from, options.steps)),
      end_(share_of(options.open.until, options.steps)),
      relock_start_(share_of(options.relock.from, options.steps)),
      relock_end_(share_of(options.relock.until, options.steps)) {}

// Steps of the decay, the last of which reaches the floor, and how many of them are done.
double TrainSchedule::decayed(int64_t step) const {
  if (options_.schedule == "wsd") {
    const int64_t length = share_of(options_.cooldown, options_.steps);
    const int64_t done = step + 1 - (options_.steps - length);
    return length > 0
               ? std::clamp(static_cast<double>(done) / static_cast<double>(length), 0.0, 1.0)
               : 0.0;
  }
  // The first step after the warm-up has the peak, the last one the floor.
  const auto length = static_cast<double>(std::max<int64_t>(1, options_.steps - 1 - warmup_));
  return std::clamp(static_cast<double>(step - warmup_) / length, 0.0, 1.0);
}

// A control has the learning rate of the run that it is compared with.
double TrainSchedule::rewarmed(int64_t step) const {
  double factor = 1;
  if ((opening_ || options_.control) && start_ > 0 && step >= start_)
    factor = ramp(step - start_, options_.rewarm);
  const bool closes = relocking_ || (options_.control && options_.relock.from < 1);
  if (closes && step >= relock_start_) factor = ramp(step - relock_start_, options_.rewarm);
  return factor;
}

double TrainSchedule::lr(int64_t step) const {
  double height = 1;  // between the floor, 0, and the peak
  const double done = decayed(step);
  if (options_.schedule == "cosine") height = 0.5 * (1 + std::cos(std::numbers::pi * done));
  if (options_.schedule == "linear") height = 1 - done;
  if (options_.schedule == "wsd")
    height = 1 - (options_.decay == "linear" ? done : std::sqrt(done));
  const double curve = options_.lr * (options_.min_lr + (1 - options_.min_lr) * height);
  return curve * ramp(step, warmup_) * rewarmed(step);
}

double TrainSchedule::alpha(int64_t step) const {
  return options_.alpha * ramp(step, alpha_warmup_);
}

Stage TrainSchedule::stage(int64_t step) const {
  if (relocking_ && step >= relock_start_) return Stage::Relock;
  if (!opening_ || step >= end_) return Stage::Full;
  return step < start_ ? Stage::Warmup : Stage::Open;
}

std::vector<StagePlan> TrainSchedule::plan() const {
  std::vector<StagePlan> plan;
  for (const int64_t from : {int64_t{0}, start_, end_, relock_start_}) {
    const bool begins = from < options_.steps && (from == 0 || stage(from) != stage(from - 1));
    const std::string name(to_string(stage(from)));
    if (!begins || (!plan.empty() && plan.back().from == from)) continue;
    if (!plan.empty()) plan.back().until = from;
    plan.push_back({name, from, options_.steps});
  }
  return plan;
}

Visibility TrainSchedule::visibility(int64_t step, const Visibility& kept) const {
  if (stage(step) == Stage::Relock) {
    const auto length = static_cast<double>(relock_end_ - relock_start_);
    const auto done = static_cast<double>(step - relock_start_);
    return relocked(kept, step >= relock_end_ ? 1.0 : done / length);
  }
  if (stage(step) == Stage::Full) return open_visibility(pool_);
  return visibility_at(pool_, schedule_of(options_.open.schedule), step, start_, end_,
                       static_cast<uint64_t>(options_.seed));
}

bool TrainSchedule::bias_moves(int64_t step) const {
  // From scratch a closed pool trains too; nothing else may balance it.
  const bool trains = options_.from_scratch && options_.balance == "bias";
  return (stage(step) != Stage::Warmup || trains) &&
         step < options_.steps - share_of(kBiasFrozenShare, options_.steps);
}

}  // namespace moue
