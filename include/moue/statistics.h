// Statistics: what measure saw when the model ran on tokens; statistics.safetensors.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "moue/pool.h"
#include "moue/report.h"

namespace moue {

/// Per MoE layer l of L, home expert i of N. All values double in memory, float64 on disk.
struct Statistics {
  std::string fingerprint;                ///< of the source it was measured on
  std::string tokens_name;                ///< file name of the tokens
  int64_t tokens = 0;                     ///< how many tokens were run
  double loss = 0;                        ///< mean cross-entropy on them
  std::vector<std::vector<double>> load;  ///< [L][N] share of choices; a row sums to 1
  std::vector<double> margin;             ///< [L] mean of z_(K) - z_(K+1)
  std::vector<double> entropy;            ///< [L] mean router entropy, nats
  std::vector<double> output_rms;  ///< [L] R_l: rms of unweighted outputs of chosen home experts

  /// Only with a plan: foreign slots in slot order. Empty otherwise.
  Slots slots;     ///< the plan's, so that another plan is refused
  double eps = 0;  ///< share of tokens whose choice opening may change, per layer
  std::vector<std::vector<double>> beta;   ///< [L][s_l - N] calibrated logit bias
  std::vector<std::vector<double>> scale;  ///< [L][s_l - N] a = R_l / R_home(p)
};

void write_statistics(const Statistics& statistics, const std::filesystem::path& file);
Statistics read_statistics(const std::filesystem::path& file);
Report report_of(const Statistics& statistics);

}  // namespace moue
