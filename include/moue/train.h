// train: continued training of a MoUE or of an ordinary model (the control).
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "moue/checkpoint.h"
#include "moue/report.h"

namespace moue {

/// Tensors that train differently: those whose name on disk matches `pattern`.
struct TrainGroup {
  std::string pattern;         ///< `*` stands for any letters, `?` for one
  double lr_multiplier = 1.0;  ///< on the learning rate
  double weight_decay = -1;    ///< in place of the run's; negative = the run's
  bool frozen = false;         ///< never moves: no gradient, no moments
  int64_t start_step = 0;      ///< stands still before this step
};

/// One of several token files that a run reads side by side.
struct TrainSource {
  std::filesystem::path tokens;
  double weight = 1;       ///< its rows among those of all, as a share of the weights' sum
  std::string token_type;  ///< "" = the run's
};

struct TrainOptions {
  std::filesystem::path tokens;
  std::vector<TrainSource> data;  ///< in place of tokens
  /// packed: rows run on across documents | separate: each row holds one document's tokens alone,
  /// and targets behind its end do not count
  std::string documents = "packed";
  std::filesystem::path held_out;  ///< "" = no evaluation
  std::string token_type;          ///< "u16", "u32", "" = by name or header
  bool control = false;            ///< the model is the unconverted source
  bool resume = false;             ///< go on from the latest step in `out`
  /// The weights were never trained: all move from the first step, and foreign slots take their
  /// start from the home layers and are calibrated where they begin to open.
  bool from_scratch = false;

  int64_t steps = 500;  ///< optimizer steps
  int64_t batch = 16;   ///< rows per step
  int64_t batch_tokens =
      0;                    ///< inputs per step, a multiple of length, in place of batch; 0 = batch
  int64_t micro_batch = 0;  ///< rows per forward; 0 = batch
  int64_t length = 256;     ///< inputs per row
  std::string order =
      "shuffled";  ///< shuffled | sequential: row i of a step at token (step * batch + i) * length
  int64_t seed = 0;

  double lr = 1e-3;
  std::string schedule = "cosine";  ///< cosine | linear | wsd (to min_lr * lr) | constant
  std::optional<int64_t> warmup;    ///< steps; unset = 2 % of steps
  int64_t rewarm = 0;               ///< steps of a warm-up where slots begin to open or to close
  double min_lr = 0.1;              ///< fraction of lr at the end
  double cooldown = 0.2;            ///< wsd: share of the steps, at the end, in which lr falls
  std::string decay = "1-sqrt";     ///< wsd: how it falls: linear | 1-sqrt
  double weight_decay = 0.1;
  std::vector<double> betas = {0.9, 0.95};
  double adam_eps = 1e-8;
  double clip = 1.0;       ///< global gradient norm; 0 = off
  double spike = 5;        ///< skip steps of so many times the usual loss or gradient norm; 0 = off
  int64_t max_skips = 20;  ///< skipped steps in a row that end the run
  /// float32 | bfloat16 (rounded stochastically): AdamW's two moments
  std::string moments = "float32";
  /// float32 | none (with dtype bfloat16: the weights themselves move, rounded stochastically)
  std::string master = "float32";
  double ema = 0;                   ///< decay of averaged weights, kept beside the run's; 0 = none
  std::vector<std::string> freeze;  ///< patterns of tensors that never move
  std::vector<TrainGroup> groups;   ///< the last one whose pattern matches a tensor decides

  double alpha = 0.01;                  ///< balance loss coefficient
  std::optional<int64_t> alpha_warmup;  ///< steps; unset = 2 % of steps
  /// universal | layer (each on its own) | family (a control's alone: the source family's own loss)
  /// | bias (the pool's selection bias alone)
  std::string balance = "universal";
  double z_loss = 0;   ///< coefficient of the router z-loss, the mean squared log-sum-exp of z
  double kappa = 1.0;  ///< exposure exponent of the target share
  double eta = 0.1;    ///< share of the per-layer sum; a control uses 1
  std::string statistics = "previous";  ///< previous | step: whose counts the balance loss uses
  double pool_bias = 1e-3;              ///< update rate u of the pool's selection bias; 0 = off
  std::string trajectory = "full";      ///< full | detach | off
  double new_lr_multiplier = 1.0;       ///< on the tensors under "moue."

  /// Share of t^2 KL(teacher || model) in the loss, the rest is cross-entropy; 0 = no teacher
  double distill = 0;
  std::filesystem::path distill_from;  ///< the teacher; "" = the model as it was before the run
  double distill_temperature = 1;      ///< t, by which both models' logits are divided

  struct Calibrate {
    int64_t tokens = 100000;  ///< 0 = skip
    double eps = 0.02;
  } calibrate;
  struct Open {
    std::string schedule = "distance";  ///< distance | psr | step | logit
    double from = 0.02;                 ///< t_s as a fraction of steps
    double until = 0.4;                 ///< t_e as a fraction of steps
  } open;
  struct Relock {
    double from = 1;      ///< start of the relocking as a fraction of steps; 1 = none
    double until = 1;     ///< its end: the slots that go are closed
    double cover = 0.95;  ///< share of each layer's choices that the slots which stay must hold
  } relock;

  int64_t log_every = 10;    ///< steps between the numbers of single tokens, and TensorBoard's
  int64_t eval_every = 100;  ///< steps between held-out losses; 0 = only at both ends
  int64_t save_every = 0;    ///< steps between checkpoints; 0 = only the last
  /// async (copy, go on, write in the background) | sync (wait until it is written)
  std::string save_mode = "async";
  std::filesystem::path compare;  ///< run to show beside this one in its report; "" = none
  int64_t keep_last = 0;          ///< only the newest so many steps stay on disk; 0 = all
  int64_t keep_every = 0;         ///< steps that are a multiple of it stay too; 0 = none
  double time_limit = 0;   ///< seconds after which the run saves and stops, exit code 4; 0 = none
  int64_t stop_after = 0;  ///< save and stop after this step; 0 = run to the end
  std::string dtype = "float32";  ///< compute: float32 | bfloat16
  bool recompute = false;      ///< keep only the inputs of blocks, run them again on the way back
  bool deterministic = false;  ///< the same bits again: refuse what cannot promise them
  std::string device = "cpu";
  int64_t threads = 0;  ///< 0 = all cores
  /// Asked of estimate_training() alone.
  uint64_t device_memory = 0;  ///< bytes to fit into; 0 = the machine's, for cuda 80 GB
  double product_rate = 0;     ///< TFLOP/s of large products; 0 = measured, or of an H100
  std::string recipe;          ///< resolved recipe, written beside the result
};

/// Needs LibTorch. `model` is a MoUE directory, or with `control` any supported checkpoint. Writes
/// out/run.json, out/train.jsonl, out/tensorboard/, out/step-XXXXXX/ (a loadable model and
/// training/), out/latest, and at its end what report_run writes. Throws Error, or Interrupted once
/// saved.
Report train(const std::filesystem::path& model, const std::filesystem::path& out,
             const TrainOptions& options);

/// Needs LibTorch. What train() would take, by arithmetic on headers and config: memory by part,
/// time, disk, and which settings change what does not fit. Nothing is loaded and nothing written;
/// the token files need not be there.
Report estimate_training(const Checkpoint& model, const std::filesystem::path& out,
                         const TrainOptions& options);

/// What a run has done so far, by its files alone: at any time, without LibTorch. `compare`: the
/// run to show beside it, such as the control; "" = none. Both may be a directory with train/ in
/// it. Writes report.html and report.json into the run's directory.
Report report_run(const std::filesystem::path& run, const std::filesystem::path& compare);

}  // namespace moue
