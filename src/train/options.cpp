// The options of a run: ranges, words, and which of them a resumed run must keep.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "moue/error.h"
#include "tokens/turns.h"
#include "train/groups.h"
#include "train/schedule.h"
#include "train/state.h"

namespace moue {
namespace {

class Faults {
 public:
  void require(bool fine, std::string fault) {
    if (!fine) faults_.push_back(std::move(fault));
  }
  void at_least(const char* key, int64_t value, int64_t least) {
    require(value >= least, fmt::format("{} is {}, wanted at least {}", key, value, least));
  }
  void between(const char* key, double value, double low, double high) {
    require(value >= low && value <= high,
            fmt::format("{} is {}, wanted {} to {}", key, value, low, high));
  }
  void not_negative(const char* key, double value) {
    require(std::isfinite(value) && value >= 0,
            fmt::format("{} is {}, wanted a number of at least 0", key, value));
  }
  void one_of(const char* key, const std::string& value, const std::vector<std::string>& words) {
    require(std::find(words.begin(), words.end(), value) != words.end(),
            fmt::format("{} is '{}', wanted one of {}", key, value, fmt::join(words, ", ")));
  }
  void report() const {
    if (!faults_.empty()) fail("train", "{}", fmt::join(faults_, "; "));
  }

 private:
  std::vector<std::string> faults_;
};

void check_counts(Faults& faults, const TrainOptions& o) {
  faults.at_least("steps", o.steps, 1);
  faults.at_least("batch", o.batch, 1);
  faults.at_least("micro_batch", o.micro_batch, 0);
  faults.at_least("length", o.length, 1);
  faults.at_least("batch_tokens", o.batch_tokens, 0);
  if (o.length > 0 && o.batch_tokens > 0) {
    const int64_t below = o.batch_tokens / o.length * o.length;
    faults.require(below == o.batch_tokens,
                   fmt::format("batch_tokens is {}, wanted a multiple of length {}, such as {}",
                               o.batch_tokens, o.length, below + o.length));
  }
  faults.at_least("rewarm", o.rewarm, 0);
  faults.at_least("max_skips", o.max_skips, 1);
  faults.at_least("keep_last", o.keep_last, 0);
  faults.at_least("keep_every", o.keep_every, 0);
  for (const TrainGroup& group : o.groups) {
    faults.require(!group.pattern.empty(), "groups has a row without a pattern");
    faults.not_negative("groups.lr_multiplier", group.lr_multiplier);
    faults.at_least("groups.start_step", group.start_step, 0);
  }
  faults.at_least("seed", o.seed, 0);
  faults.at_least("warmup", o.warmup.value_or(0), 0);
  faults.at_least("alpha_warmup", o.alpha_warmup.value_or(0), 0);
  faults.at_least("calibrate.tokens", o.calibrate.tokens, 0);
  faults.at_least("log_every", o.log_every, 1);
  faults.at_least("eval_every", o.eval_every, 0);
  faults.at_least("save_every", o.save_every, 0);
  faults.at_least("stop_after", o.stop_after, 0);
  faults.at_least("threads", o.threads, 0);
}

void check_numbers(Faults& faults, const TrainOptions& o) {
  faults.not_negative("lr", o.lr);
  faults.not_negative("weight_decay", o.weight_decay);
  faults.not_negative("adam_eps", o.adam_eps);
  faults.not_negative("clip", o.clip);
  faults.require(o.spike == 0 || (std::isfinite(o.spike) && o.spike > 1),
                 fmt::format("spike is {}, wanted 0 or more than 1", o.spike));
  faults.not_negative("time_limit", o.time_limit);
  faults.not_negative("alpha", o.alpha);
  faults.not_negative("kappa", o.kappa);
  faults.not_negative("z_loss", o.z_loss);
  faults.require(o.ema >= 0 && o.ema < 1, fmt::format("ema is {}, wanted 0 to below 1", o.ema));
  faults.not_negative("pool_bias", o.pool_bias);
  faults.not_negative("new_lr_multiplier", o.new_lr_multiplier);
  faults.between("distill", o.distill, 0, 1);
  faults.require(std::isfinite(o.distill_temperature) && o.distill_temperature > 0,
                 fmt::format("distill_temperature is {}, wanted above 0", o.distill_temperature));
  faults.require(!o.from_scratch || o.distill == 0 || !o.distill_from.empty(),
                 fmt::format("distill is {} from scratch, where the model before the run knows "
                             "nothing; name a teacher with distill_from",
                             o.distill));
  faults.between("min_lr", o.min_lr, 0, 1);
  faults.between("cooldown", o.cooldown, 0, 1);
  faults.between("eta", o.eta, 0, 1);
  faults.between("calibrate.eps", o.calibrate.eps, 0, 1);
  faults.between("open.from", o.open.from, 0, 1);
  faults.between("open.until", o.open.until, o.open.from, 1);
  faults.between("relock.from", o.relock.from, 0, 1);
  faults.between("relock.until", o.relock.until, o.relock.from, 1);
  faults.between("relock.cover", o.relock.cover, 0, 1);
  const bool after = o.relock.from == 1 || o.relock.from >= o.open.until;
  faults.require(after, fmt::format("relock.from is {}, wanted at least open.until, {}",
                                    o.relock.from, o.open.until));
  const bool two = o.betas.size() == 2;
  faults.require(two, fmt::format("betas has {} numbers, wanted 2", o.betas.size()));
  for (const double beta : o.betas)
    faults.require(beta >= 0 && beta < 1, fmt::format("betas has {}, wanted [0, 1)", beta));
}

void check_sources(Faults& faults, const TrainOptions& o) {
  if (o.data.empty())
    return faults.require(!o.tokens.empty(), "tokens names no file, wanted one to train on");
  faults.require(o.tokens.empty(),
                 fmt::format("tokens is {} beside {} rows of data, wanted one of them; give it a "
                             "row of [[train.data]]",
                             o.tokens.string(), o.data.size()));
  faults.require(
      o.data.size() <= Turns::kMostSources,
      fmt::format("data has {} rows, wanted at most {}", o.data.size(), Turns::kMostSources));
  for (const TrainSource& source : o.data) {
    faults.require(!source.tokens.empty(), "data has a row without tokens");
    faults.require(std::isfinite(source.weight) && source.weight > 0,
                   fmt::format("data.weight is {}, wanted a number above 0", source.weight));
  }
}

void check_precision(Faults& faults, const TrainOptions& o) {
  faults.one_of("moments", o.moments, {"float32", "bfloat16"});
  faults.one_of("master", o.master, {"float32", "none"});
  if (o.master != "none") return;
  faults.require(
      o.dtype == "bfloat16",
      "master is none, wanted with dtype bfloat16: float32 weights are their own master");
  faults.require(o.ema == 0, fmt::format("ema is {}, wanted 0 where master is none: averages are "
                                         "kept in float32, as masters are",
                                         o.ema));
}

}  // namespace

void check_options(const TrainOptions& options) {
  Faults faults;
  check_counts(faults, options);
  check_numbers(faults, options);
  faults.one_of("order", options.order, {"shuffled", "sequential"});
  faults.one_of("schedule", options.schedule, {"cosine", "linear", "wsd", "constant"});
  faults.one_of("decay", options.decay, {"linear", "1-sqrt"});
  faults.one_of("balance", options.balance, {"universal", "layer", "family", "bias"});
  faults.require(options.balance != "family" || options.control,
                 "balance is family, wanted with control alone: it knows no shared experts");
  faults.require(options.balance != "bias" || (options.pool_bias > 0 && !options.control),
                 "balance is bias, wanted a pool and pool_bias above 0: else nothing balances");
  faults.one_of("save_mode", options.save_mode, {"async", "sync"});
  faults.one_of("statistics", options.statistics, {"previous", "step"});
  faults.one_of("trajectory", options.trajectory, {"full", "detach", "off"});
  faults.one_of("open.schedule", options.open.schedule, {"distance", "psr", "step", "logit"});
  faults.one_of("dtype", options.dtype, {"float32", "bfloat16"});
  check_precision(faults, options);
  faults.one_of("documents", options.documents, {"packed", "separate"});
  check_sources(faults, options);
  faults.report();
}

TrainOptions settled(TrainOptions options) {
  if (options.batch_tokens > 0) options.batch = options.batch_tokens / options.length;
  if (options.micro_batch == 0) options.micro_batch = options.batch;
  if (options.balance == "bias") options.alpha = 0;
  if (options.balance == "layer") options.eta = 1;
  if (options.control) options.eta = 1;  // the ordinary loss of each layer on its own
  return options;
}

// Left out: what may change without changing the numbers (paths, intervals, device, threads).
Fixed fixed_options(const TrainOptions& o) {
  const auto text = [](const auto& value) { return fmt::format("{}", value); };
  const int64_t steps = default_warmup(o.steps);
  return {{"control", text(o.control)},
          {"from_scratch", text(o.from_scratch)},
          {"steps", text(o.steps)},
          {"batch", text(o.batch)},
          {"micro_batch", text(o.micro_batch)},
          {"length", text(o.length)},
          {"order", o.order},
          {"documents", o.documents},
          {"seed", text(o.seed)},
          {"lr", text(o.lr)},
          {"schedule", o.schedule},
          {"warmup", text(o.warmup.value_or(steps))},
          {"rewarm", text(o.rewarm)},
          {"min_lr", text(o.min_lr)},
          {"cooldown", text(o.cooldown)},
          {"decay", o.decay},
          {"weight_decay", text(o.weight_decay)},
          {"betas", fmt::format("{}", fmt::join(o.betas, ", "))},
          {"adam_eps", text(o.adam_eps)},
          {"clip", text(o.clip)},
          {"spike", text(o.spike)},
          {"groups", groups_text(o)},
          {"alpha", text(o.alpha)},
          {"alpha_warmup", text(o.alpha_warmup.value_or(steps))},
          {"balance", o.balance},
          {"z_loss", text(o.z_loss)},
          {"ema", text(o.ema)},
          {"moments", o.moments},
          {"master", o.master},
          {"kappa", text(o.kappa)},
          {"eta", text(o.eta)},
          {"statistics", o.statistics},
          {"pool_bias", text(o.pool_bias)},
          {"trajectory", o.trajectory},
          {"new_lr_multiplier", text(o.new_lr_multiplier)},
          {"distill", text(o.distill)},
          {"distill_temperature", text(o.distill > 0 ? o.distill_temperature : 1)},
          {"open.schedule", o.open.schedule},
          {"open.from", text(o.open.from)},
          {"open.until", text(o.open.until)},
          {"relock.from", text(o.relock.from)},
          {"relock.until", text(o.relock.until)},
          {"relock.cover", text(o.relock.cover)},
          {"recompute", text(o.recompute)},
          {"deterministic", text(o.deterministic)},
          {"threads", o.deterministic ? text(o.threads) : "any"},
          {"dtype", o.dtype}};
}

void require_same(const Fixed& then, const Fixed& now, const std::filesystem::path& out) {
  std::vector<std::string> differences;
  for (const auto& [key, value] : now) {
    const auto old = then.find(key);
    const std::string before = old == then.end() ? "unset" : old->second;
    if (before != value)
      differences.push_back(fmt::format("{} is {}, the run began with {}", key, value, before));
  }
  if (differences.empty()) return;
  fail("train", "{} cannot be resumed: {}; resume with the options it began with", out.string(),
       fmt::join(differences, "; "));
}

}  // namespace moue
