// The settings of [train].
#include "recipe/declare.h"

namespace moue {
namespace {

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

}  // namespace

std::vector<Knob> train_knobs() {
  std::vector<Knob> all;
  for (auto&& part : {train_data_knobs(), train_optimizer_knobs(), train_run_knobs(),
                      train_source_knobs(), train_group_knobs()}) {
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

}  // namespace moue
