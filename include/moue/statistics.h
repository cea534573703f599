// Statistics: what measure saw when the model ran on tokens; statistics.safetensors.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "moue/pool.h"
#include "moue/report.h"

namespace moue {

/// How alike experts of different layers are: the best score of physical expert p for any of layer
/// l's own experts (docs/method.md section 2).
struct Similarity {
  std::string kind;     ///< "output": how well p's outputs stand for the own expert's; or "cka"
  std::string inputs;   ///< "tokens" (of layer l) or "gaussian"
  int64_t samples = 0;  ///< inputs of a layer
  int64_t reach = 0;    ///< MoE layers to either side that were compared
  /// [L][L N], 0 to 1; kUnknown for own experts and beyond the reach. Empty = not measured.
  std::vector<std::vector<double>> score;
  static constexpr double kUnknown = -1;
};

/// What it costs to put a donor in the place of an own expert: held-out losses on the same tokens.
struct Replacement {
  Home replaced;
  Home best, random;  ///< most alike to the replaced within reach; any other drawn within reach
  double best_score = 0, random_score = 0;  ///< for the replaced expert
  double best_loss = 0, random_loss = 0;    ///< mean cross-entropy
};

/// Per MoE layer l of L, home expert i of N. All values double in memory, float64 on disk.
struct Statistics {
  std::string fingerprint;                ///< of the source it was measured on
  std::string tokens_name;                ///< file name of the tokens
  int64_t tokens = 0;                     ///< how many tokens were run
  double loss = 0;                        ///< mean cross-entropy on them
  std::vector<std::vector<double>> load;  ///< [L][N] share of choices; a row sums to 1
  /// [L] mean of z_(K) - z_(K+1): by how much the last chosen home expert beats the first that is
  /// not. In units of selection: scores plus correction where those are sigmoids; of the experts of
  /// kept groups where the router keeps some.
  std::vector<double> margin;
  std::vector<double> entropy;     ///< [L] mean router entropy, nats
  std::vector<double> output_rms;  ///< [L] R_l: rms of unweighted outputs of chosen home experts

  Similarity similarity;                  ///< only where asked for
  std::vector<Replacement> replacements;  ///< only where asked for

  /// Only with a plan: foreign slots in slot order. Empty otherwise.
  Slots slots;               ///< the plan's, so that another plan is refused
  std::vector<Home> donors;  ///< of the plan's new experts (expand), for the same reason
  double eps = 0;            ///< share of tokens whose choice opening may change, per layer
  std::vector<std::vector<double>> beta;   ///< [L][s_l - N] logit bias, calibrated unless:
  std::vector<std::vector<double>> scale;  ///< [L][s_l - N] a = R_l / R_home(p)
  /// [L][s_l - N] calibrated selection bias, in families with a correction; there beta is the home
  /// router's bias or 0. Empty in the others.
  std::vector<std::vector<double>> correction;
};

void write_statistics(const Statistics& statistics, const std::filesystem::path& file);
Statistics read_statistics(const std::filesystem::path& file);
Report report_of(const Statistics& statistics);

}  // namespace moue
