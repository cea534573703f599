// Settings that change nothing in this run: each gets a warning instead of silence.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "recipe/knob.h"

namespace moue {
namespace {

struct Effect {
  const char* key;  ///< a knob, or a table of knobs
  bool (*idle)(const Recipe&);
  const char* because;
};

bool uses_scores(const Recipe& r) {
  return r.plan.topology == "similarity" || !r.plan.compare.empty();
}

const Effect kEffects[] = {
    {"measure.eps", [](const Recipe& r) { return r.measure.plan.empty(); },
     "there is no plan to calibrate for"},
    {"measure.likeness", [](const Recipe& r) { return r.measure.reach == 0; },
     "experts are not compared: reach is 0"},
    {"measure.samples", [](const Recipe& r) { return r.measure.reach == 0; },
     "experts are not compared: reach is 0"},
    {"plan.donors", [](const Recipe& r) { return r.plan.mode == "reuse"; },
     "mode reuse copies no expert"},
    {"plan.reach", [](const Recipe& r) { return !uses_scores(r); }, "no topology goes by scores"},
    {"plan.scores", [](const Recipe& r) { return !uses_scores(r); }, "no topology goes by scores"},
    {"plan.samples", [](const Recipe& r) { return !uses_scores(r) || r.plan.scores == "data"; },
     "no Gaussian inputs are drawn"},
    {"plan.topology", [](const Recipe& r) { return !r.plan.compare.empty(); },
     "compare names the topologies"},
    {"plan.out", [](const Recipe& r) { return !r.plan.compare.empty(); },
     "a comparison writes no plan"},
    {"plan",
     [](const Recipe& r) { return r.verb == "convert" && r.given.contains("convert.plan"); },
     "the plan is read from a file"},
    {"train.eta", [](const Recipe& r) { return r.train.balance == "layer"; },
     "balance is layer: each layer on its own"},
    {"train.alpha", [](const Recipe& r) { return r.train.balance == "bias"; },
     "balance is bias: there is no balance loss"},
    {"train.eta", [](const Recipe& r) { return r.train.control; },
     "a control balances each layer on its own"},
    {"train.kappa", [](const Recipe& r) { return r.train.control; }, "a control shares no expert"},
    {"train.pool_bias", [](const Recipe& r) { return r.train.control; }, "a control has no pool"},
    {"train.trajectory", [](const Recipe& r) { return r.train.control; },
     "a control has no trajectory state"},
    {"train.new_lr_multiplier", [](const Recipe& r) { return r.train.control; },
     "a control has no new tensors"},
    {"train.calibrate", [](const Recipe& r) { return r.train.control; },
     "a control has no foreign slots"},
    {"train.open", [](const Recipe& r) { return r.train.control && r.train.rewarm == 0; },
     "a control has no foreign slots"},
    {"train.calibrate.eps", [](const Recipe& r) { return r.train.calibrate.tokens == 0; },
     "calibrate.tokens is 0"},
    {"train.eta", [](const Recipe& r) { return r.train.alpha == 0; }, "alpha is 0"},
    {"train.statistics", [](const Recipe& r) { return r.train.alpha == 0; }, "alpha is 0"},
    {"train.alpha_warmup", [](const Recipe& r) { return r.train.alpha == 0; }, "alpha is 0"},
    {"train.distill_from", [](const Recipe& r) { return r.train.distill == 0; }, "distill is 0"},
    {"train.distill_temperature", [](const Recipe& r) { return r.train.distill == 0; },
     "distill is 0"},
    {"train.min_lr", [](const Recipe& r) { return r.train.schedule == "constant"; },
     "schedule is constant"},
    {"train.cooldown", [](const Recipe& r) { return r.train.schedule != "wsd"; },
     "schedule is not wsd"},
    {"train.decay", [](const Recipe& r) { return r.train.schedule != "wsd"; },
     "schedule is not wsd"},
    {"train.batch", [](const Recipe& r) { return r.train.batch_tokens > 0; },
     "batch_tokens says how many"},
    {"train.save_mode", [](const Recipe& r) { return r.train.save_every == 0; },
     "save_every is 0: the one checkpoint is the last, for which the run waits"},
    {"train.keep_every", [](const Recipe& r) { return r.train.keep_last == 0; },
     "keep_last is 0: all checkpoints stay"},
    {"train.relock", [](const Recipe& r) { return r.train.control && r.train.rewarm == 0; },
     "a control has no foreign slots"},
    {"train.relock", [](const Recipe& r) { return r.train.relock.from == 1; },
     "relock.from is 1: no slot closes"},
    {"train.eval_every", [](const Recipe& r) { return r.train.held_out.empty(); },
     "there is no held_out file"},
    {"validate.token_type", [](const Recipe& r) { return r.validate.tokens.empty(); },
     "there is no token file"},
    {"validate.max_tokens", [](const Recipe& r) { return r.validate.tokens.empty(); },
     "there is no token file"},
    {"validate.max_loss_increase", [](const Recipe& r) { return r.validate.tokens.empty(); },
     "there is no token file"},
    {"validate.max_kl", [](const Recipe& r) { return r.validate.tokens.empty(); },
     "there is no token file"},
    {"validate.max_logit_error", [](const Recipe& r) { return r.validate.reference.empty(); },
     "there is no reference"},
};

bool covers(std::string_view name, std::string_view key) {
  return key == name || (key.starts_with(name) && key.substr(name.size()).starts_with('.'));
}

bool belongs_to_run(const Recipe& recipe, std::string_view key) {
  for (const auto table : tables_of(recipe.verb, recipe)) {
    if (covers(table, key)) return true;
  }
  return false;
}

// What a report leaves aside, together: a recipe may have all of it.
std::vector<std::string> settings_of_training(const Recipe& recipe) {
  std::vector<std::string> keys;
  for (const std::string& key : recipe.given) {
    if (key.starts_with("train.") && key != "train.report" && key != "train.compare")
      keys.push_back(fmt::format("'{}'", key));
  }
  if (keys.empty()) return {};
  return {fmt::format("a report trains nothing: {} without effect", fmt::join(keys, ", "))};
}

}  // namespace

std::vector<std::string> settings_without_effect(const Recipe& recipe) {
  if (recipe.verb == "train" && !recipe.train.report.empty()) return settings_of_training(recipe);
  std::vector<std::string> warnings;
  const Recipe defaults;
  for (const std::string& key : recipe.given) {
    const Knob* knob = find_knob(key);
    if (!belongs_to_run(recipe, key) || toml_text(*knob, recipe) == toml_text(*knob, defaults))
      continue;
    for (const Effect& effect : kEffects) {
      if (!covers(effect.key, key) || !effect.idle(recipe)) continue;
      warnings.push_back(fmt::format("'{}' has no effect in this run: {}", key, effect.because));
      break;
    }
  }
  return warnings;
}

}  // namespace moue
