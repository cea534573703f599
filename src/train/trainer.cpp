// Trainer: one run in memory.
#include "train/trainer.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "core/files.h"
#include "core/sha256.h"
#include "model/windows.h"
#include "moue/error.h"
#include "moue/log.h"
#include "pool/schedule.h"
#include "train/calibrate.h"
#include "train/memory.h"
#include "train/teacher.h"

namespace moue {
namespace {

using Clock = std::chrono::steady_clock;

AdamwOptions adamw_options(const TrainOptions& options) {
  return {.weight_decay = options.weight_decay,
          .beta1 = options.betas[0],
          .beta2 = options.betas[1],
          .eps = options.adam_eps,
          .clip = options.clip,
          .new_lr_multiplier = options.new_lr_multiplier,
          .moments = scalar_type(options.moments),
          .seed = static_cast<uint64_t>(options.seed)};
}

constexpr double kShareDecay = 0.99;  // of the running shares that relocking goes by

void add_shares(PerSlot& running, const PerSlot& f) {
  if (running.empty()) running = f;
  for (size_t layer = 0; layer < f.size(); ++layer) {
    for (size_t slot = 0; slot < f[layer].size(); ++slot)
      running[layer][slot] += (1 - kShareDecay) * (f[layer][slot] - running[layer][slot]);
  }
}

bool all_open(const Visibility& visibility) {
  return std::all_of(visibility.begin(), visibility.end(), [](const std::vector<double>& row) {
    return std::all_of(row.begin(), row.end(), [](double m) { return m == 1.0; });
  });
}

}  // namespace

Trainer::Trainer(const Checkpoint& source, const Checkpoint& weights, const TrainOptions& options)
    : source_(source), options_(settled(options)) {
  const ModelSpec spec = family_of(source.config()).spec(source.config());
  ModelOptions how{scalar_type(options.dtype), device_of(options.device), 0, true};
  how.masters = options_.master != "none";
  how.frozen = [this](const std::string& tensor) { return is_frozen(options_, tensor); };
  data_ = std::make_unique<TrainData>(options_, spec.vocabulary);
  if (!options_.held_out.empty()) {
    const TokenFile tokens =
        open_tokens(options_.held_out, options_.token_type, options_.length, spec.vocabulary);
    held_out_ = windows_of(tokens, options_.length);
    held_out_mask_ = masks_of(tokens, options_.length);
    if (held_out_mask_.defined() && !held_out_mask_.any().item<bool>())
      fail("train", "{}: its mask counts none of the targets", options_.held_out.string());
  }
  const std::string advice = less_memory_in_weights(options_);
  within_memory("loading weights and making their gradients", advice,
                [&] { model_ = Model::open(weights, how); });
  within_memory("making the moments of the optimizer", advice, [&] {
    optimizer_ = std::make_unique<Optimizer>(model_->parameters(), adamw_options(options_),
                                             groups_of(model_->parameters(), options_));
  });
  writer_ = std::make_unique<StepWriter>(*model_, source_);
  within_memory("loading the teacher", advice,
                [&] { teacher_ = open_teacher(source_, *model_, options_); });
  state_.fixed = fixed_options(options_);
  const std::string config = source.config().text();
  state_.fixed["model"] = sha256_of(std::as_bytes(std::span(config))).substr(0, 12);
  state_.fixed["tokens"] = data_->identity();
  state_.fixed["distill_from"] = teacher_identity(options_);
  if (options_.balance == "family" && spec.router.score != RouterScore::Softmax)
    fail("train",
         "balance is family, wanted a model whose routers take a softmax; its family's own "
         "loss is another");
  state_.opening = model_->is_moue() && model_->pool().state == PoolState::Closed;
  calibrated_ = model_->pool().calibrated;
  data_->describe(options_.steps);
  start();
}

void Trainer::start() {
  schedule_ = std::make_unique<TrainSchedule>(options_, model_->pool(), state_.opening);
  state_.stages = schedule_->plan();
  target_ = balance_target(model_->pool(), model_->visibility(), options_.kappa, options_.eta);
}

void Trainer::calibrate_if_new() {
  if (!state_.opening || calibrated_ || options_.calibrate.tokens == 0 || opens_later()) return;
  const int64_t windows = options_.calibrate.tokens / options_.length;
  calibrate(*model_, data_->first_windows(windows), options_);
  calibrated_ = true;
}

bool Trainer::opens_later() const {
  return options_.from_scratch && state_.opening && schedule_->opens_at() > state_.step;
}

// From scratch a pool is converted where it begins to open: until then its home layers have moved.
void Trainer::begin_opening() {
  if (!options_.from_scratch || !state_.opening || state_.step != schedule_->opens_at()) return;
  start_foreign(*model_);
  calibrate_if_new();
}

void Trainer::restore(const std::filesystem::path& step) {
  start_average();
  state_ = restore_training(step, state_.fixed, *model_, *optimizer_, average_.get());
  start();
}

Moving Trainer::moving() const {
  return {options_.trajectory != "off", stage() != Stage::Warmup || options_.from_scratch,
          state_.step};
}

// After the calibration, before the first step.
void Trainer::start_average() {
  if (options_.ema > 0 && !average_)
    average_ = std::make_unique<Average>(model_->parameters(), options_.ema);
}

// What stands still in this step gets no gradient. A norm over other parameters says nothing about
// this one's.
void Trainer::set_moving() {
  const Moving now = moving();
  int64_t count = 0;
  for (const Parameter& parameter : model_->parameters())
    count += optimizer_->moves(parameter, now);
  if (count != state_.num_moving) state_.norms.clear();
  state_.num_moving = count;
  if (count == num_moving_) return;
  num_moving_ = count;
  model_->set_moving([&](const Parameter& parameter) { return optimizer_->moves(parameter, now); });
}

StepSettings Trainer::settings() const {
  return {.micro_batch = options_.micro_batch,
          .detach_trajectory = options_.trajectory == "detach",
          .alpha = schedule_->alpha(state_.step),
          .z_loss = options_.z_loss,
          .recompute = options_.recompute,
          .family = options_.balance == "family" ? model_->spec().experts_per_token : 0,
          .running = options_.statistics == "step",
          .routing = logs(options_, state_.step + 1),
          .f = state_.previous.empty() ? uniform_shares(model_->visibility()) : state_.previous,
          .target = target_,
          .distill = {teacher_.get(), options_.distill, options_.distill_temperature}};
}

// How far slots are open in this step; where relocking begins, which of them stay.
void Trainer::set_slots() {
  if (!schedule_->moves_slots()) return;
  if (stage() == Stage::Relock && state_.kept.empty()) {
    const PerSlot& f = !state_.shares.empty() ? state_.shares : settings().f;
    state_.kept = kept_slots(model_->pool(), f, options_.relock.cover);
  }
  set_visibility(schedule_->visibility(state_.step, state_.kept));
}

void Trainer::set_visibility(const Visibility& visibility) {
  if (model_->visibility() == visibility) return;
  model_->set_visibility(visibility);
  target_ = balance_target(model_->pool(), visibility, options_.kappa, options_.eta);
}

StepRecord Trainer::step() {
  const Clock::time_point begin = Clock::now();
  start_average();
  begin_opening();
  set_slots();
  set_moving();
  StepRecord record;
  record.step = state_.step + 1;
  record.stage = stage();
  record.lr = schedule_->lr(state_.step);
  record.alpha = schedule_->alpha(state_.step);
  const std::string doing = fmt::format("making step {} on {} rows of {} tokens at a time",
                                        record.step, options_.micro_batch, options_.length);
  within_memory(doing, less_memory_in_steps(options_), [&] {
    const StepSums sums = run_step(*model_, data_->batch(state_.data_step), settings());
    const RouterShares shares = shares_of(sums.routers);
    record.loss = sums.loss;
    if (teacher_) record.divergence = sums.divergence;
    if (tamper) tamper(state_.step, model_->parameters(), record.loss);
    record.balance = balance_sums(model_->pool(), target_, shares);
    record.load = load_report(model_->pool(), target_, shares.f);
    look(sums, record);
    update(shares, record);
  });
  ++state_.step;
  ++state_.data_step;
  record.mean_loss = state_.losses.mean();
  record.epochs = data_->epochs(state_.data_step);
  record.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  record.tokens_per_second = static_cast<double>(options_.batch * options_.length) / record.seconds;
  return record;
}

// What only logging steps show.
void Trainer::look(const StepSums& sums, StepRecord& record) const {
  const Pool& pool = model_->pool();
  if (sums.routing.defined())
    record.routing = routing_report(sums.routing, pool, target_, sums.routers);
  if (!shows_load(options_, record.step)) return;
  record.chosen = sums.routers.chosen;
  record.exposure = exposure(target_.visibility, pool.slots, pool.num_physical());
}

// A norm beyond kLargest has squares that float32 cannot hold.
void Trainer::judge(StepRecord& record) {
  constexpr double kLargest = 1e18;
  record.grad_norm = optimizer_->gradient_norm(moving());
  const bool finite = record.grad_norm < kLargest && std::isfinite(record.loss);
  record.spike = finite && (state_.norms.stands_out(record.grad_norm, options_.spike) ||
                            state_.losses.stands_out(record.loss, options_.spike));
  record.skipped = !finite || record.spike;
  state_.skips.count(record.skipped, record.spike);
}

// What is not finite, or stands out, stays out of weights, moments, counts, bias and window.
void Trainer::update(const RouterShares& shares, StepRecord& record) {
  judge(record);
  if (record.skipped) return;
  optimizer_->update(record.lr, record.grad_norm, moving(), model_->visibility());
  model_->refresh_values();
  if (average_) average_->update();
  if (schedule_->bias_moves(state_.step)) move_pool_bias(shares.f);
  state_.previous = shares.f;
  if (schedule_->relocking() && record.stage == Stage::Full) add_shares(state_.shares, shares.f);
  state_.losses.add(record.loss);
  state_.norms.add(record.grad_norm);
}

void Trainer::move_pool_bias(const PerSlot& f) {
  if (!model_->is_moue() || options_.pool_bias == 0) return;
  const at::Tensor bias = model_->pool_bias();
  const at::Tensor host = bias.to(at::kCPU, at::kDouble).contiguous();
  std::vector<double> values(host.data_ptr<double>(), host.data_ptr<double>() + host.numel());
  update_pool_bias(values, model_->pool(), target_, f, options_.pool_bias,
                   model_->spec().router.score);
  bias.copy_(at::tensor(values, at::kDouble));
}

std::optional<HeldOut> Trainer::evaluate_held_out() {
  if (!held_out_.defined()) return std::nullopt;
  const auto measured = [&] {
    return evaluate(*model_, held_out_, options_.micro_batch, held_out_mask_);
  };
  const Evaluation now = measured();
  HeldOut result{now.loss, now.standard_error, std::nullopt, now.foreign_share, std::nullopt};
  if (stage() == Stage::Open && options_.open.schedule == "psr") {
    const Visibility drawn = model_->visibility();
    model_->set_visibility(open_visibility(model_->pool()));
    result.all_open = measured().loss;
    model_->set_visibility(drawn);
  }
  if (average_) {
    average_->swap();
    model_->refresh_values();
    result.average = measured().loss;
    average_->swap();
    model_->refresh_values();
  }
  if (!state_.held_out_first) state_.held_out_first = result.loss;
  state_.held_out_best = std::min(result.loss, state_.held_out_best.value_or(result.loss));
  return result;
}

void Trainer::finish_pool() {
  if (!model_->is_moue() || model_->pool().state == PoolState::Relocked) return;
  set_visibility(state_.kept.empty() ? open_visibility(model_->pool()) : relocked(state_.kept, 1));
}

std::optional<OpeningEffect> Trainer::opening_effect() {
  if (!state_.opening || opens_later() || (!held_out_.defined() && options_.calibrate.tokens == 0))
    return std::nullopt;
  const bool held_out = held_out_.defined();
  const at::Tensor windows =
      held_out ? held_out_ : data_->first_windows(options_.calibrate.tokens / options_.length);
  return effect_of_opening(*model_, windows, options_.micro_batch,
                           held_out ? held_out_mask_ : at::Tensor());
}

// The pool as the config of a step says it is.
StepImage Trainer::image() const {
  Pool pool = model_->pool();
  pool.calibrated = calibrated_;
  if (pool.state != PoolState::Relocked)
    pool.state = all_open(model_->visibility()) ? PoolState::Trained : PoolState::Opened;
  if (!state_.kept.empty() && model_->visibility() == relocked(state_.kept, 1))
    pool.state = PoolState::Relocked;
  return image_of(*model_, *optimizer_, average_.get(), state_, pool);
}

void Trainer::require_room(const std::filesystem::path& out) const {
  require_space(out, writer_->bytes(image()));
}

std::filesystem::path Trainer::save(const std::filesystem::path& out,
                                    const std::string& recipe) const {
  return writer_->write(out, image(), recipe);
}

std::function<std::filesystem::path()> Trainer::save_later(const std::filesystem::path& out,
                                                           const std::string& recipe) const {
  require_room(out);
  return [this, out, recipe, copy = copied(image(), model_->parameters())] {
    return writer_->write(out, copy, recipe);
  };
}

}  // namespace moue
