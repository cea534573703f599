// train.jsonl: one object per step and per held-out loss; the same as TensorBoard's curves; and
// the progress line.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "core/files.h"
#include "model/opening.h"
#include "train/balance.h"
#include "train/events.h"
#include "train/routing.h"
#include "train/schedule.h"

namespace moue {

struct StepRecord {
  int64_t step = 0;  ///< counted from 1: after this many updates
  Stage stage = Stage::Full;
  double loss = 0;
  std::optional<double> divergence;  ///< from the teacher
  double mean_loss = 0;              ///< over the window of the last steps
  double lr = 0;
  double alpha = 0;
  double grad_norm = 0;
  double seconds = 0;
  double tokens_per_second = 0;
  double epochs = 0;
  bool skipped = false;
  bool spike = false;  ///< skipped, though finite
  BalanceSums balance;
  LoadReport load;
  std::optional<RoutingReport> routing;  ///< at logging steps
  PerSlot chosen;                        ///< how often each slot was, at steps that show the load
  std::vector<double> exposure;          ///< x_p, at the same steps
};

struct HeldOut {
  double loss = 0;
  double standard_error = 0;
  std::optional<double> all_open;  ///< during psr: the same with every slot open
  double foreign_share = 0;
  std::optional<double> average;  ///< of the averaged weights
};

/// Appends to out/train.jsonl, and at logging steps to a file in out/tensorboard. Records of steps
/// after `resumed_at`, left by a run that was killed, are dropped.
class Journal {
 public:
  Journal(const std::filesystem::path& out, int64_t resumed_at);
  void add(const StepRecord& record);
  void add(int64_t step, Stage stage, const HeldOut& held_out);
  void add(const OpeningEffect& effect);

 private:
  void write(const std::string& line);
  std::filesystem::path file_;
  Descriptor fd_;
  EventFile events_;
};

/// Shows stage, loss, learning rate and speed.
void show_progress(const StepRecord& record, int64_t steps);

}  // namespace moue
