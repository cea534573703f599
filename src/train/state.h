// What a run must remember between two processes besides weights and moments.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "moue/train.h"
#include "train/balance.h"
#include "train/optimizer.h"
#include "train/schedule.h"
#include "train/skips.h"

namespace moue {

/// Throws Error listing every option that is out of its range, or has no such word.
void check_options(const TrainOptions& options);

/// With what follows from other options filled in: rows of a step and of a forward pass, eta of a
/// control.
TrainOptions settled(TrainOptions options);

/// Options and inputs that a resumed run must share with its beginning, by key, as text.
using Fixed = std::map<std::string, std::string>;
Fixed fixed_options(const TrainOptions& settled);

/// Throws Error listing each difference by key.
void require_same(const Fixed& then, const Fixed& now, const std::filesystem::path& out);

struct TrainState {
  int64_t step = 0;       ///< optimizer steps done, skipped ones included
  int64_t data_step = 0;  ///< batches read
  bool opening = false;   ///< the run began with a closed pool
  Skips skips;
  PerSlot previous;  ///< f of the last step that was not skipped; empty before it
  PerSlot shares;    ///< running f, where this run will relock; empty before a step
  PerSlot kept;      ///< slots that stay (kept_slots); empty before relocking
  Window losses;
  Window norms;            ///< of the gradient, since the last change of what moves
  int64_t num_moving = 0;  ///< parameters that moved in the last step
  std::optional<double> held_out_first;
  std::optional<double> held_out_best;
  Fixed fixed;
  std::vector<StagePlan> stages;  ///< the plan of the whole run
};

/// state.json and state.safetensors in a folder.
void write_state(const TrainState& state, const std::vector<Optimizer::Moments>& moments,
                 const std::filesystem::path& directory);
/// Reads both back; `moments` get their update counts. Throws Error for what does not fit `slots`.
TrainState read_state(const std::filesystem::path& directory, const Slots& slots,
                      std::vector<Optimizer::Moments>& moments);

inline constexpr const char* kStateJson = "state.json";
inline constexpr const char* kStateTensors = "state.safetensors";

}  // namespace moue
