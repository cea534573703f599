// What a run leaves to be seen: run.json says what it is, train.jsonl what became of it.
// Torch-free, and readable while the run goes on.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "moue/pool.h"
#include "train/balance.h"
#include "train/schedule.h"

namespace moue {

/// run.json, written when a run begins.
struct RunFacts {
  std::string model;  ///< directory it was trained from
  bool control = false;
  int64_t steps = 0;            ///< of the whole run
  int64_t tokens_per_step = 0;  ///< inputs
  int64_t experts_per_layer = 0;
  int64_t experts_per_token = 0;
  int64_t num_physical = 0;
  Slots slots;
  std::vector<StagePlan> stages;
};
void write_run_facts(const std::filesystem::path& out, const RunFacts& facts);

/// A line of train.jsonl; NaN for what it does not have.
struct StepLine {
  int64_t step = 0;
  bool skipped = false;
  double loss = 0, mean_loss = 0, lr = 0, grad_norm = 0, tokens_per_second = 0;
  double foreign_share = 0, pool_max_vio = 0, worst_max_vio = 0;
  double balance_pool = 0, balance_layer = 0, dead = 0;
};
/// What a logging step has besides; a number for each layer, or for each but the last.
struct RoutingLine {
  int64_t step = 0;
  std::vector<double> max_vio, foreign, entropy, margin, bonus, spread, reuse, reuse_chance;
  double distinct = 0, utilisation = 0;
};
struct LoadLine {
  int64_t step = 0;
  PerSlot chosen;
  std::vector<double> exposure;  ///< x_p
};
struct HeldOutLine {
  int64_t step = 0;
  double loss = 0, standard_error = 0, foreign_share = 0, all_open = 0, average = 0;
};

struct RunLog {
  std::filesystem::path directory;
  std::optional<RunFacts> facts;  ///< absent in runs of older versions
  std::vector<StepLine> steps;
  std::vector<RoutingLine> routing;
  std::vector<HeldOutLine> held_out;
  std::optional<LoadLine> first_load, last_load;  ///< only with facts, whose slots they fit
};

/// Reads what stands in a run's directory, or in DIR/train. A last line without an end is one that
/// is being written and is left out. Throws Error for a directory without train.jsonl, and for a
/// line or a run.json that no run has written.
RunLog read_run(const std::filesystem::path& directory);

/// The directory that read_run would read.
std::filesystem::path run_directory(const std::filesystem::path& directory);

}  // namespace moue
