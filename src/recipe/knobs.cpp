// The table of all settings: key, meaning, bounds. Defaults are those of the options structs.
#include <algorithm>

#include "recipe/knob.h"

namespace moue {
namespace {

Knob declare(const char* key, const char* help, Field (*field)(Recipe&)) {
  Knob knob;
  knob.key = key;
  knob.help = help;
  knob.field = field;
  return knob;
}

// The key is the place in Recipe, spelled the same.
#define MOUE_KNOB(place, help) \
  declare(#place, help, [](Recipe& recipe) -> Field { return &recipe.place; })

const std::vector<std::string> kDtypes = {"float32", "bfloat16"};
const std::vector<std::string> kDevices = {"cpu", "cuda"};
const std::vector<std::string> kTokenTypes = {"", "u16", "u32"};

std::vector<std::string> with_all(std::vector<std::string> names) {
  names.insert(names.begin(), {"", "all"});
  return names;
}

std::vector<Knob> run_knobs() {
  return {
      MOUE_KNOB(source, "model directory to start from").empty_means("none").local(),
      MOUE_KNOB(out, "OUT, directory of the run: where stages find each other's files")
          .empty_means("none")
          .local(),
      MOUE_KNOB(json, "print the result as one JSON object").local(),
      MOUE_KNOB(quiet, "no lines and no progress on stderr").local(),
  };
}

std::vector<Knob> measure_knobs() {
  return {
      MOUE_KNOB(measure.tokens, "token file").empty_means("required").local(),
      MOUE_KNOB(measure.plan, "plan.json to calibrate for")
          .empty_means("OUT/plan.json where it exists")
          .local(),
      MOUE_KNOB(measure.out, "statistics file to write")
          .empty_means("OUT/statistics.safetensors, without OUT here")
          .local(),
      MOUE_KNOB(measure.token_type, "element type of a raw token file")
          .one_of(kTokenTypes)
          .empty_means("by the file's name or header"),
      MOUE_KNOB(measure.max_tokens, "stop after this many; 0 = the whole file").range(0, 1e15),
      MOUE_KNOB(measure.length, "tokens per window").range(1, 1e6),
      MOUE_KNOB(measure.batch, "windows per forward pass").range(1, 1e6),
      MOUE_KNOB(measure.eps, "share of a layer's tokens whose choice opening may change").below(1),
      MOUE_KNOB(measure.reach,
                "compare experts with those of so many MoE layers to either side; 0 = not")
          .range(0, 65536),
      MOUE_KNOB(measure.likeness,
                "by what: output (errors where the expert is used) or cka (linear CKA)")
          .one_of({"output", "cka"}),
      MOUE_KNOB(measure.samples, "tokens of a layer on which they are compared")
          .range(2, 4096)
          .empty_means("2048, for cka 256"),
      MOUE_KNOB(
          measure.replace,
          "trials: an expert answered for by its best donor within reach, and by a random one")
          .range(0, 1e6),
      MOUE_KNOB(measure.dtype, "arithmetic").one_of(kDtypes),
      MOUE_KNOB(measure.device, "where the model runs").one_of(kDevices),
      MOUE_KNOB(measure.threads, "threads of the CPU; 0 = all cores").range(0, 4096).local(),
  };
}

std::vector<Knob> plan_knobs() {
  return {
      MOUE_KNOB(plan.mode, "share the source's experts, or add copies and share those")
          .one_of({"reuse", "expand"}),
      MOUE_KNOB(plan.experts, "expand: how many experts are added").range(0, 1 << 20),
      MOUE_KNOB(plan.donors, "expand: which experts are copied")
          .one_of({"", "even", "load", "weight"})
          .empty_means("load with statistics, else even"),
      MOUE_KNOB(plan.topology, "named topology, the start of the parameters below")
          .one_of(topology_names()),
      MOUE_KNOB(plan.group, "layers that share one window")
          .range(1, 1e6)
          .empty_means("the topology's"),
      MOUE_KNOB(plan.shift,
                "experts by which the window moves from one group to the next; a "
                "multiple of the experts per layer says the group too")
          .range(-1e6, 1e6)
          .empty_means("the topology's"),
      MOUE_KNOB(plan.window, "experts of the ring that a window shows")
          .range(1, 1e6)
          .empty_means("the topology's"),
      MOUE_KNOB(plan.stride, "distance between two experts of a window")
          .range(1, 1e6)
          .empty_means("the topology's"),
      MOUE_KNOB(plan.origin, "where the first window starts")
          .range(-1e6, 1e6)
          .empty_means("the topology's"),
      MOUE_KNOB(plan.boundary, "what happens at the ends of the ring")
          .one_of({"", "ring", "clamp"})
          .empty_means("the topology's"),
      MOUE_KNOB(plan.reach, "similarity: how many MoE layers away a donor may be")
          .range(1, 65536)
          .empty_means("2"),
      MOUE_KNOB(plan.scores, "similarity: scores of data (statistics) or none (Gaussian inputs)")
          .one_of({"", "data", "none"})
          .empty_means("data where the statistics have them"),
      MOUE_KNOB(plan.samples, "similarity without data: Gaussian inputs").range(2, 4096),
      MOUE_KNOB(plan.max_sharing, "refuse plans in which more layers list one expert; 0 = no cap")
          .range(0, 1e6),
      MOUE_KNOB(plan.state_dim, "numbers of the trajectory state").range(1, 256),
      MOUE_KNOB(plan.foreign_input, "through whose norm a foreign expert is fed")
          .one_of({"home", "layer"}),
      MOUE_KNOB(plan.compare,
                "topologies to put side by side, joined by commas; no plan is written")
          .some_of(with_all(topology_names()))
          .bare_means("all")
          .empty_means("one plan is made")
          .local(),
      MOUE_KNOB(plan.statistics, "statistics file to plan by").empty_means("none").local(),
      MOUE_KNOB(plan.out, "plan file to write, its picture beside it")
          .empty_means("OUT/plan.json, without OUT here")
          .local(),
  };
}

std::vector<Knob> convert_knobs() {
  return {
      MOUE_KNOB(convert.plan, "plan.json to follow")
          .empty_means("OUT/plan.json where it exists, else made from [plan]")
          .local(),
      MOUE_KNOB(convert.statistics, "statistics file with the calibration")
          .empty_means("none")
          .local(),
      MOUE_KNOB(convert.out, "model directory to write").empty_means("OUT/model").local(),
      MOUE_KNOB(convert.layout,
                "the source's shards linked beside new files; everything packed anew in reading "
                "order; or exported as an ordinary model")
          .one_of({"", "linked", "packed", "export"})
          .empty_means("linked, and export with layers"),
      MOUE_KNOB(convert.base_model, "the source's name on the Hub, for the model card")
          .form("ORG/MODEL")
          .empty_means("not known"),
      MOUE_KNOB(convert.dtype, "float weights are rounded to it; the pool's own stay float32")
          .one_of({"", "float32", "bfloat16", "float16"})
          .empty_means("as in the source"),
      MOUE_KNOB(convert.layers, "cut an ordinary model to its layers FIRST to LAST - 1")
          .form("FIRST:LAST")
          .empty_means("all"),
      MOUE_KNOB(convert.shard_size, "largest weight file, unless one tensor is larger")
          .range(1 << 12, 1e15),
      MOUE_KNOB(
          convert.memory,
          "all buffers together; the program takes up to 64 MiB more, and 1 KiB for each tensor")
          .range(1 << 20, 1e15)
          .local(),
      MOUE_KNOB(convert.threads, "threads that read, hash and write; 0 = two for each core")
          .range(0, 4096)
          .local(),
      MOUE_KNOB(
          convert.hash,
          "note the SHA-256 of the source's weight files, linked ones too: all are read once"),
      MOUE_KNOB(convert.dry_run, "say bytes, time and memory of every layout; write nothing")
          .local(),
      MOUE_KNOB(convert.seed, "draws the trajectory keys and queries").range(0, 9e15),
  };
}

std::vector<Knob> train_data_knobs() {
  return {
      MOUE_KNOB(train.model, "model directory to train")
          .empty_means("OUT/model, with control the source")
          .local(),
      MOUE_KNOB(
          train.init,
          "train from scratch: a config.json, or a directory with one; its weights are drawn by "
          "seed into OUT/init and, without control, made a MoUE by [plan] in OUT/model")
          .empty_means("model is trained")
          .local(),
      MOUE_KNOB(train.tokens, "token file to train on; several: [[train.data]]")
          .empty_means("required, or [[train.data]]")
          .local(),
      MOUE_KNOB(train.held_out, "token file for the held-out loss")
          .empty_means("no evaluation")
          .local(),
      MOUE_KNOB(train.out, "directory to write")
          .empty_means("OUT/train, with control OUT/control")
          .local(),
      MOUE_KNOB(train.token_type, "element type of raw token files")
          .one_of(kTokenTypes)
          .empty_means("by the file's name or header"),
      MOUE_KNOB(train.control, "train the unconverted source: the run to compare with"),
      MOUE_KNOB(train.resume, "go on from the latest step in the output directory").local(),
      MOUE_KNOB(train.steps, "optimizer steps").range(1, 1e9),
      MOUE_KNOB(train.batch, "rows per step").range(1, 1e6),
      MOUE_KNOB(train.batch_tokens,
                "inputs per step in place of batch, a multiple of length; 0 = batch")
          .range(0, 1e12),
      MOUE_KNOB(train.micro_batch, "rows per forward pass; 0 = batch").range(0, 1e6),
      MOUE_KNOB(train.length, "inputs per row").range(1, 1e6),
      MOUE_KNOB(train.order, "order of the rows: by (seed, step), or as they stand in the file")
          .one_of({"shuffled", "sequential"}),
      MOUE_KNOB(
          train.documents,
          "packed: rows run on across documents, which see each other; separate: a row holds "
          "tokens of one document alone, targets behind its end do not count (Megatron files)")
          .one_of({"packed", "separate"}),
      MOUE_KNOB(train.seed,
                "decides the order of the rows, the draws of schedules, and with init the weights")
          .range(0, 9e15),
  };
}

std::vector<Knob> train_optimizer_knobs() {
  return {
      MOUE_KNOB(train.lr, "peak learning rate").range(0, 10),
      MOUE_KNOB(train.schedule, "after the warm-up")
          .one_of({"cosine", "linear", "wsd", "constant"}),
      MOUE_KNOB(train.warmup, "steps until the peak").empty_means("2 % of steps"),
      MOUE_KNOB(train.rewarm,
                "steps over which the learning rate rises again where slots begin to open")
          .range(0, 1e9),
      MOUE_KNOB(train.cooldown,
                "wsd: share of the steps, at the end, in which the learning rate falls")
          .range(0, 1),
      MOUE_KNOB(train.decay, "wsd: how it falls").one_of({"linear", "1-sqrt"}),
      MOUE_KNOB(train.min_lr, "learning rate at the end, as a fraction of lr").range(0, 1),
      MOUE_KNOB(train.weight_decay, "decoupled decay of matrices").range(0, 10),
      MOUE_KNOB(train.betas, "decay of the two moments").pair().below(1),
      MOUE_KNOB(train.adam_eps, "added to the root of the second moment").range(0, 1),
      MOUE_KNOB(train.clip, "global norm to which gradients are cut; 0 = off").range(0, 1e9),
      MOUE_KNOB(train.spike,
                "skip steps whose loss or gradient norm is so many times the median of the last "
                "50; 0 = off")
          .range(0, 1e9),
      MOUE_KNOB(train.max_skips,
                "skipped steps in a row after which the run saves and stops, exit code 2")
          .range(1, 1e9),
      MOUE_KNOB(
          train.ema,
          "decay of averaged weights, saved in training/ and evaluated beside the run's; 0 = none")
          .below(1),
      MOUE_KNOB(train.moments,
                "AdamW's two moments; bfloat16 halves them, rounded stochastically by (seed, step)")
          .one_of(kDtypes),
      MOUE_KNOB(train.master,
                "float32 copies of bfloat16 weights; none: the weights themselves move, rounded "
                "stochastically")
          .one_of({"float32", "none"}),
      MOUE_KNOB(train.freeze,
                "names of tensors that never move; * stands for any letters, ? for one")
          .empty_means("none"),
      MOUE_KNOB(train.alpha, "coefficient of the balance loss").range(0, 1e3),
      MOUE_KNOB(train.alpha_warmup, "steps until alpha is reached").empty_means("2 % of steps"),
      MOUE_KNOB(train.balance,
                "what balances the load: the pool's loss, each layer's on its own, the source "
                "family's own (with control), or the pool's bias alone")
          .one_of({"universal", "layer", "family", "bias"}),
      MOUE_KNOB(train.z_loss,
                "coefficient of the router z-loss, the mean squared log-sum-exp of its logits")
          .range(0, 1e3),
      MOUE_KNOB(train.kappa, "exposure exponent of the target share").range(0, 16),
      MOUE_KNOB(train.eta, "share of the per-layer sum in the balance loss; a control uses 1")
          .range(0, 1),
      MOUE_KNOB(train.statistics, "whose counts the balance loss uses")
          .one_of({"previous", "step"}),
      MOUE_KNOB(train.pool_bias, "update rate of the pool's selection bias; 0 = off").range(0, 10),
      MOUE_KNOB(train.trajectory, "gradients through the trajectory state, or no state")
          .one_of({"full", "detach", "off"}),
      MOUE_KNOB(train.new_lr_multiplier, "on the learning rate of the new tensors").range(0, 1e6),
      MOUE_KNOB(
          train.distill,
          "share of the divergence from a teacher, t^2 KL(teacher || model), in the loss, whose "
          "rest is cross-entropy; 0 = no teacher")
          .range(0, 1),
      MOUE_KNOB(train.distill_from, "model directory of the teacher, of the same vocabulary")
          .empty_means("the model as it was before the run: while closed, its source")
          .local(),
      MOUE_KNOB(train.distill_temperature, "t, by which both models' logits are divided")
          .range(1e-3, 1e3),
  };
}

std::vector<Knob> train_run_knobs() {
  return {
      MOUE_KNOB(train.log_every,
                "steps between looks at single tokens (entropy, margin, reuse, ...) and between "
                "TensorBoard's points; a line of train.jsonl is written each step")
          .range(1, 1e9)
          .local(),
      MOUE_KNOB(train.eval_every, "steps between held-out losses; 0 = only at both ends"),
      MOUE_KNOB(train.report,
                "write report.html and report.json of a run's directory, at any time; trains "
                "nothing")
          .empty_means("a run writes them at its end")
          .local(),
      MOUE_KNOB(train.compare, "a run to show beside this one in its report, such as the control")
          .empty_means("OUT/control where it exists")
          .local(),
      MOUE_KNOB(train.save_every, "steps between checkpoints; 0 = only the last"),
      MOUE_KNOB(
          train.save_mode,
          "write checkpoints while the run goes on, from a copy of weights, moments and averages "
          "in the host's memory; or let the run wait, which needs no copy")
          .one_of({"async", "sync"})
          .local(),
      MOUE_KNOB(train.keep_last, "keep only the newest so many checkpoints; 0 = all").local(),
      MOUE_KNOB(train.keep_every,
                "keep also the checkpoints of steps that are a multiple of it; 0 = no others")
          .local(),
      MOUE_KNOB(train.time_limit,
                "seconds after which the run saves and stops, exit code 4; 0 = none")
          .range(0, 1e9)
          .local(),
      MOUE_KNOB(train.stop_after, "save and stop after this step; 0 = run to the end").local(),
      MOUE_KNOB(train.dtype, "arithmetic of forward and backward").one_of(kDtypes),
      MOUE_KNOB(train.recompute,
                "keep only the inputs of blocks for the way back and run them again: less memory, "
                "a third more work")
          .local(),
      MOUE_KNOB(train.dry_run,
                "say memory, time and disk from config and headers, and what fits; load and write "
                "nothing")
          .local(),
      MOUE_KNOB(train.device_memory, "dry_run: what must fit; 0 = this machine's, for cuda 80 GB")
          .range(0, 1e15)
          .local(),
      MOUE_KNOB(train.product_rate,
                "dry_run: TFLOP/s of large matrix products; 0 = measured here, or an H100's")
          .range(0, 1e6)
          .local(),
      MOUE_KNOB(train.deterministic,
                "LibTorch refuses algorithms that may differ from run to run; a resumed run must "
                "have the same threads"),
      MOUE_KNOB(train.device, "where the model runs").one_of(kDevices),
      MOUE_KNOB(train.threads, "threads of the CPU; 0 = all cores").range(0, 4096).local(),
      MOUE_KNOB(train.calibrate.tokens, "tokens of the calibration before step 0; 0 = skip")
          .range(0, 1e15),
      MOUE_KNOB(train.calibrate.eps, "share of a layer's tokens whose choice opening may change")
          .below(1),
      MOUE_KNOB(train.open.schedule, "how foreign slots become visible")
          .one_of({"distance", "psr", "step", "logit"}),
      MOUE_KNOB(train.open.from, "start of the opening, as a fraction of steps").range(0, 1),
      MOUE_KNOB(train.open.until, "end of the opening, as a fraction of steps").range(0, 1),
      MOUE_KNOB(train.relock.from,
                "start of the relocking, in which little used slots close again, as a fraction of "
                "steps; 1 = none")
          .range(0, 1),
      MOUE_KNOB(train.relock.until, "end of the relocking, as a fraction of steps").range(0, 1),
      MOUE_KNOB(train.relock.cover,
                "share of each layer's choices that the slots which stay must hold")
          .range(0, 1),
  };
}

// Rows of [[train.data]], read into Recipe::data.
std::vector<Knob> train_source_knobs() {
  const auto row = [](const char* key, const char* help, Field (*field)(Recipe&)) {
    return declare(key, help, field).row();
  };
  return {
      row("train.data.tokens", "token file, one of several that are read side by side",
          [](Recipe& recipe) -> Field { return &recipe.data.tokens; })
          .empty_means("required")
          .local(),
      row("train.data.weight", "its share of the rows is this over the sum of all weights",
          [](Recipe& recipe) -> Field { return &recipe.data.weight; })
          .range(1e-6, 1e9),
      row("train.data.token_type", "element type of a raw token file",
          [](Recipe& recipe) -> Field { return &recipe.data.token_type; })
          .one_of(kTokenTypes)
          .empty_means("the run's token_type"),
  };
}

// Rows of [[train.groups]], read into Recipe::group.
std::vector<Knob> train_group_knobs() {
  const auto row = [](const char* key, const char* help, Field (*field)(Recipe&)) {
    return declare(key, help, field).row();
  };
  return {
      row("train.groups.pattern",
          "names of tensors that train differently; * stands for any letters, ? for one; the last "
          "row that matches a tensor decides",
          [](Recipe& recipe) -> Field { return &recipe.group.pattern; })
          .form("PATTERN")
          .empty_means("required"),
      row("train.groups.lr_multiplier", "on the learning rate",
          [](Recipe& recipe) -> Field { return &recipe.group.lr_multiplier; })
          .range(0, 1e6),
      row("train.groups.weight_decay", "decay of its matrices; negative = the run's",
          [](Recipe& recipe) -> Field { return &recipe.group.weight_decay; })
          .range(-1, 10),
      row("train.groups.frozen", "never moves: no gradient, no moments, no weight-gradient product",
          [](Recipe& recipe) -> Field { return &recipe.group.frozen; }),
      row("train.groups.start_step", "stands still before this step",
          [](Recipe& recipe) -> Field { return &recipe.group.start_step; }),
  };
}

std::vector<Knob> validate_knobs() {
  return {
      MOUE_KNOB(validate.result, "model directory to examine").empty_means("OUT/model").local(),
      MOUE_KNOB(validate.manifest,
                "re-check this directory by its own manifest: files, hashes, ledger; no source")
          .empty_means("the gates")
          .local(),
      MOUE_KNOB(validate.reference, "safetensors with tokens and logits from elsewhere")
          .empty_means("G2 does not apply")
          .local(),
      MOUE_KNOB(validate.tokens, "token file for G1 and G3")
          .empty_means("512 seeded tokens")
          .local(),
      MOUE_KNOB(validate.token_type, "element type of a raw token file")
          .one_of(kTokenTypes)
          .empty_means("by the file's name or header"),
      MOUE_KNOB(validate.max_tokens, "tokens used for G3; 0 = the whole file").range(0, 1e15),
      MOUE_KNOB(validate.length, "tokens per window").range(1, 1e6),
      MOUE_KNOB(validate.batch, "windows per forward pass").range(1, 1e6),
      MOUE_KNOB(validate.memory, "weights held at a time").range(1 << 20, 1e15).local(),
      MOUE_KNOB(validate.expect, "state to demand of the result")
          .one_of({"", "closed", "opened", "trained", "relocked"})
          .empty_means("as the result says"),
      MOUE_KNOB(validate.dtype, "arithmetic")
          .one_of({"", "float32", "bfloat16"})
          .empty_means("float32 for small models, else the checkpoint's"),
      MOUE_KNOB(validate.device, "where the models run").one_of(kDevices),
      MOUE_KNOB(validate.threads, "threads of the CPU; 0 = all cores").range(0, 4096).local(),
      MOUE_KNOB(validate.max_logit_error, "G2: largest difference over the largest logit")
          .range(0, 1e9),
      MOUE_KNOB(validate.max_loss_increase, "G3: nats over the source; negative = only reported")
          .range(-1, 1e9),
      MOUE_KNOB(validate.max_kl, "G3: mean KL(source || result) in nats; negative = only reported")
          .range(-1, 1e9),
      MOUE_KNOB(validate.only_bytes, "G0 alone: compare files, run no model"),
      MOUE_KNOB(validate.html, "page to write").empty_means("OUT/report.html").local(),
  };
}

#undef MOUE_KNOB

std::vector<Knob> all_knobs() {
  std::vector<Knob> all;
  for (auto&& part : {run_knobs(), measure_knobs(), plan_knobs(), convert_knobs(),
                      train_data_knobs(), train_optimizer_knobs(), train_run_knobs(),
                      train_source_knobs(), train_group_knobs(), validate_knobs()}) {
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

}  // namespace

const std::vector<Knob>& knobs() {
  static const std::vector<Knob> all = all_knobs();
  return all;
}

const Knob* find_knob(std::string_view key) {
  const auto& all = knobs();
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const Knob& knob) { return knob.key == key; });
  return found == all.end() ? nullptr : &*found;
}

std::string_view Knob::table() const {
  const size_t dot = key.rfind('.');
  return dot == std::string::npos ? std::string_view() : std::string_view(key).substr(0, dot);
}

std::string_view Knob::flag() const {
  const size_t dot = key.find('.');
  return dot == std::string::npos ? std::string_view(key) : std::string_view(key).substr(dot + 1);
}

std::vector<std::string_view> tables_of(std::string_view verb, const Recipe& recipe) {
  const bool converts = !recipe.train.init.empty() && !recipe.train.control;
  if (verb == "inspect") return {};
  if (verb == "convert") return {"convert", "plan"};
  if (verb == "train" && converts) return {"train", "convert", "plan"};
  return {verb};
}

}  // namespace moue
