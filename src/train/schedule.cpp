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

std::string_view to_string(Stage stage) {
  switch (stage) {
    case Stage::Calibrate:
      return "calibrate";
    case Stage::Warmup:
      return "warmup";
    case Stage::Open:
      return "open";
    case Stage::Full:
      break;
  }
  return "full";
}

TrainSchedule::TrainSchedule(const TrainOptions& options, const Pool& pool, bool opening)
    : options_(options),
      pool_(pool),
      opening_(opening),
      warmup_(options.warmup.value_or(default_warmup(options.steps))),
      alpha_warmup_(options.alpha_warmup.value_or(default_warmup(options.steps))),
      start_(share_of(options.open.from, options.steps)),
      end_(share_of(options.open.until, options.steps)) {}

double TrainSchedule::lr(int64_t step) const {
  if (step < warmup_ || options_.schedule == "constant") return options_.lr * ramp(step, warmup_);
  // The first step after the warm-up has the peak, the last one the floor.
  const auto length = static_cast<double>(std::max<int64_t>(1, options_.steps - 1 - warmup_));
  const double done = std::min(1.0, static_cast<double>(step - warmup_) / length);
  const double cosine = 0.5 * (1 + std::cos(std::numbers::pi * done));
  return options_.lr * (options_.min_lr + (1 - options_.min_lr) * cosine);
}

double TrainSchedule::alpha(int64_t step) const {
  return options_.alpha * ramp(step, alpha_warmup_);
}

Stage TrainSchedule::stage(int64_t step) const {
  if (!opening_ || step >= end_) return Stage::Full;
  return step < start_ ? Stage::Warmup : Stage::Open;
}

Visibility TrainSchedule::visibility(int64_t step) const {
  if (stage(step) == Stage::Full) return open_visibility(pool_);
  return visibility_at(pool_, schedule_of(options_.open.schedule), step, start_, end_,
                       static_cast<uint64_t>(options_.seed));
}

bool TrainSchedule::bias_moves(int64_t step) const {
  return stage(step) != Stage::Warmup &&
         step < options_.steps - share_of(kBiasFrozenShare, options_.steps);
}

}  // namespace moue
