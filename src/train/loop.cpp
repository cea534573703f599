// train: the whole run, from the checks before the first byte to the report.
#include "train/loop.h"

#include <ATen/Context.h>
#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>

#include "core/disk.h"
#include "core/files.h"
#include "core/stop.h"
#include "core/text.h"
#include "core/tree.h"
#include "moue/error.h"
#include "moue/log.h"
#include "train/checkpoint.h"
#include "train/run_file.h"
#include "train/saver.h"
#include "train/trainer.h"

namespace fs = std::filesystem;

namespace moue {
namespace {

// The run's directory: made when everything has been checked, removed again where no step was saved
// into it.
class Output {
 public:
  Output(fs::path directory, bool exists) : directory_(std::move(directory)), keep_(exists) {
    keep_ |= make_directories(directory_, "train").empty();
    lock_ = Descriptor(disk::open(directory_, O_RDONLY | O_DIRECTORY));
    if (lock_.get() < 0) {
      fail_disk("train", "{} cannot be opened: {}", directory_.string(), error_text(errno));
    }
    if (!lock_partial(lock_, directory_)) {
      fail("train", "{} is being written by another run; name another --out", directory_.string());
    }
  }
  ~Output() {
    if (!keep_) remove_tree(directory_);
  }
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;
  void keep() { keep_ = true; }

 private:
  fs::path directory_;
  Descriptor lock_;
  bool keep_;
};

void refuse_wrong_kind(const fs::path& model, const Config& config, bool control) {
  if (control && is_moue(config))
    fail("train",
         "{} is a MoUE, wanted the source it was made from; name that one, or leave out --control",
         model.string());
  if (!control && !is_moue(config))
    fail("train",
         "{} is an ordinary model ({}), wanted a MoUE; convert it, or train it with --control",
         model.string(), config.string("model_type", "no model_type"));
}

// The step to go on from; nothing for a run that starts, or was stopped before it saved one.
std::optional<fs::path> resume_point(const fs::path& out, bool resume) {
  const bool exists = stands(out);
  if (!resume && exists)
    fail("train", "{} exists; name another --out, or go on with --resume", out.string());
  if (!resume) return std::nullopt;
  if (!exists)
    fail("train", "{} does not exist, nothing to resume; leave out --resume", out.string());
  const std::optional<fs::path> step = latest_step(out);
  if (!step) log_line("train", "{} has no saved step: starting anew", out.string());
  return step;
}

class Run {
 public:
  Run(Trainer& trainer, const StopSignals& stop, fs::path out, const TrainOptions& options,
      std::string recipe)
      : trainer_(trainer),
        stop_(stop),
        out_(std::move(out)),
        options_(settled(options)),
        recipe_(std::move(recipe)),
        journal_(out_, trainer.state().step),
        first_step_(trainer.state().step) {}

  void begin() {
    if (first_step_ > 0) return;
    trainer_.calibrate_if_new();
    if (const auto effect = trainer_.opening_effect()) foretell(*effect);
    hold_out();
    if (stop_.asked())
      throw Interrupted("[train] stopped before the first step, nothing was saved; start anew");
  }

  /// Until the end, a wish to stop, or hopelessness.
  void go(Output& output) {
    Stage before = Stage::Calibrate;
    while (!trainer_.done()) {
      saver_.check();
      last_ = trainer_.step();
      output.keep();
      if (last_.stage != before)
        log_line("train", "step {}: stage {}", last_.step, to_string(before = last_.stage));
      journal_.add(last_);
      show();
      if (trainer_.done()) trainer_.finish_pool();
      if (trainer_.done() || due(options_.eval_every)) hold_out();
      const bool ended = stop_.asked() || out_of_time();
      const bool stopping = ended || last_.step == options_.stop_after;
      const bool hopeless = trainer_.state().skips.in_a_row >= options_.max_skips;
      const bool leaving = trainer_.done() || stopping || hopeless;
      if (leaving || due(options_.save_every)) save(leaving);
      if (leaving) report_run(out_, options_.compare);
      if (hopeless) give_up();
      if (ended && !trainer_.done()) interrupt();
      if (stopping) return;
    }
  }

  Report report() const {
    Report report;
    report.verb = "train";
    report.title = "Training of " + out_.string();
    const TrainState& state = trainer_.state();
    report.facts = {{"steps", state.step, ""},
                    {"skipped", state.skips.total, ""},
                    {"spikes", state.skips.spikes, ""}};
    if (state.held_out_first) report.facts.push_back({"held_out_first", *state.held_out_first, ""});
    if (held_out_) report.facts.push_back({"held_out_last", held_out_->loss, ""});
    if (last_.step > 0) {
      const double share = held_out_ ? held_out_->foreign_share : last_.load.foreign_share;
      report.facts.push_back({"loss", state.losses.mean(), ""});
      report.facts.push_back({"foreign_share", share, ""});
      report.facts.push_back({"max_vio", largest(last_.load.max_vio), ""});
      report.facts.push_back({"pool_max_vio", last_.load.pool_max_vio, ""});
      report.facts.push_back({"dead_experts", last_.load.dead, ""});
      report.facts.push_back({"seconds", seconds_, "s"});
      report.facts.push_back({"tokens_per_second", tokens_per_second(), "tok/s"});
    }
    report.facts.push_back({"checkpoint", saved_.string(), ""});
    if (options_.held_out.empty())
      report.warnings.push_back("no --held_out: the loss was measured on training tokens only");
    if (idle_warmup())
      report.warnings.push_back(fmt::format(
          "trajectory = off: nothing moved before step {}; open.from = 0 starts at once",
          trainer_.schedule().opens_at()));
    return report;
  }

  void saved(fs::path step) { saved_ = std::move(step); }

 private:
  bool out_of_time() const {
    const std::chrono::duration<double> since = std::chrono::steady_clock::now() - began_;
    return options_.time_limit > 0 && since.count() >= options_.time_limit;
  }

  bool due(int64_t every) const { return every > 0 && last_.step % every == 0; }

  bool idle_warmup() const {
    return options_.trajectory == "off" && trainer_.schedule().opening() &&
           trainer_.schedule().opens_at() > 0;
  }

  static double largest(const std::vector<double>& values) {
    return values.empty() ? 0 : *std::max_element(values.begin(), values.end());
  }

  double tokens_per_second() const {
    return static_cast<double>((last_.step - first_step_) * options_.batch * options_.length) /
           seconds_;
  }

  // One at a time. What the run ends with needs no copy: nothing changes it.
  void save(bool leaving) {
    saver_.wait();
    const auto settle = [this](const fs::path& step) {
      log_line("train", "saved {}", step.string());
      prune_steps(out_, options_.keep_last, options_.keep_every);
      return step;
    };
    if (leaving || options_.save_mode == "sync")
      saved_ = settle(trainer_.save(out_, recipe_));
    else
      saver_.start(
          [settle, write = trainer_.save_later(out_, recipe_)] { return settle(write()); });
  }

  void show() {
    seconds_ += last_.seconds;
    show_progress(last_, options_.steps);
  }

  void foretell(const OpeningEffect& effect) {
    journal_.add(effect);
    const auto [least, most] = std::minmax_element(effect.changed.begin(), effect.changed.end());
    log_line("train",
             "opening everything now would change the choices of {:.1f} to {:.1f} % of a layer's "
             "tokens; loss {:.4f} closed, {:.4f} open",
             100 * *least, 100 * *most, effect.loss_closed, effect.loss_open);
  }

  void hold_out() {
    held_out_ = trainer_.evaluate_held_out();
    if (!held_out_) return;
    const int64_t step = trainer_.state().step;
    journal_.add(step, step == 0 ? Stage::Calibrate : last_.stage, *held_out_);
    log_line("train", "step {}: held-out loss {:.4f} +- {:.4f}", step, held_out_->loss,
             held_out_->standard_error);
  }

  [[noreturn]] void give_up() const {
    const Skips& skips = trainer_.state().skips;
    fail(
        "train",
        "step {}: {} steps in a row were skipped, {} of all {} as spikes and the others for a loss "
        "or gradient that is not finite; saved in {}, try a lower lr",
        last_.step, skips.in_a_row, skips.spikes, skips.total, saved_.string());
  }

  [[noreturn]] void interrupt() const {
    throw Interrupted(fmt::format(
        "[train] stopped after step {}, saved in {}; the same command with --resume goes on",
        last_.step, saved_.string()));
  }

  Trainer& trainer_;
  const StopSignals& stop_;
  fs::path out_;
  const TrainOptions options_;
  std::string recipe_;
  Journal journal_;
  int64_t first_step_;
  StepRecord last_;
  std::optional<HeldOut> held_out_;
  double seconds_ = 0;
  fs::path saved_;
  Saver saver_;  ///< ends before what it writes from
  std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
};

RunFacts facts_of(const fs::path& model, Trainer& trainer, const TrainOptions& options) {
  const Pool& pool = trainer.model().pool();
  return {.model = model.string(),
          .control = options.control,
          .steps = options.steps,
          .tokens_per_step = settled(options).batch * options.length,
          .experts_per_layer = pool.experts_per_layer,
          .experts_per_token = trainer.model().spec().experts_per_token,
          .num_physical = pool.num_physical(),
          .slots = pool.slots,
          .stages = trainer.schedule().plan()};
}

// cuBLAS reads its variable when it is first used.
void set_deterministic(bool on) {
  if (on) ::setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", 0);
  at::globalContext().setDeterministicAlgorithms(on, false);
}

// What was written beside the run when it began.
std::string recipe_of(const fs::path& out, const std::string& recipe, bool resumed) {
  const fs::path file = out / "recipe.toml";
  if (resumed && stands(file)) return read_whole_file(file, "train");
  if (!recipe.empty()) write_file_whole(file, recipe);
  return recipe;
}

}  // namespace

Report train_model(const fs::path& model, const fs::path& out, const TrainOptions& options) {
  check_options(options);
  if (!options.compare.empty()) read_run(options.compare);  // else its report would fail at the end
  const std::optional<fs::path> step = resume_point(out, options.resume);
  const Checkpoint source = open_checkpoint(model);
  refuse_wrong_kind(model, source.config(), options.control);
  set_threads(options.threads);
  set_deterministic(options.deterministic);
  if (step) verify_step(*step);
  Trainer trainer(source, step ? open_checkpoint(*step) : source, options);
  if (step) trainer.restore(*step);

  trainer.require_room(out);
  const StopSignals stop;
  Output output(out, options.resume);
  Run run(trainer, stop, out, options, recipe_of(out, options.recipe, step.has_value()));
  if (step) run.saved(*step);
  write_run_facts(out, facts_of(model, trainer, options));
  run.begin();
  run.go(output);
  return run.report();
}

}  // namespace moue
