// plan: maps the experts of all layers into one pool under a staggered rotational topology.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "moue/checkpoint.h"
#include "moue/family.h"
#include "moue/pool.h"
#include "moue/report.h"
#include "moue/statistics.h"

namespace moue {

/// Unset parameters come from the named topology; a set one overrides it.
struct PlanOptions {
  std::string mode = "reuse";  ///< reuse | expand
  int64_t experts = 0;         ///< expand: how many are added, M
  std::string donors = {};  ///< expand: even | load | weight; "" = load with statistics, else even
  std::string topology = "half_staggered";  ///< one of topology_names()
  std::optional<int64_t> group = {};
  std::optional<int64_t> shift = {};
  std::optional<int64_t> window = {};
  std::optional<int64_t> stride = {};
  std::optional<int64_t> origin = {};
  std::string boundary = {};           ///< ring | clamp; "" = the topology's default
  std::optional<int64_t> reach = {};   ///< similarity: MoE layers a donor may be away
  std::string scores = {};             ///< similarity: data | none; "" = data where measured
  int64_t samples = 256;               ///< similarity without data: Gaussian inputs
  int64_t max_sharing = 0;             ///< refuse plans with c_p above it; 0 = no cap
  int64_t state_dim = 32;              ///< trajectory state, 1..256
  std::string foreign_input = "home";  ///< home | layer
};

/// How alike a layer's donors are to its own experts, by their scores.
struct LayerScores {
  int64_t layer = 0;
  double best = 0, mean = 0, worst = 0;
};
/// What a plan keeps of the scores it was made by.
struct PlanScores {
  std::string kind;    ///< "output" | "cka"
  std::string inputs;  ///< "tokens" | "gaussian"
  int64_t samples = 0;
  std::vector<LayerScores> layers;  ///< those with foreign slots
};

struct Plan {
  Pool pool;                         ///< state closed
  std::string fingerprint;           ///< of the source
  std::vector<std::string> notes;    ///< "the last block overlaps the one before", ...
  std::optional<PlanScores> scores;  ///< topology similarity
};

/// A named topology for L MoE layers of N experts, before overrides; `ring` new experts in expand,
/// where ceil(ring / L) stands for N. Throws Error listing the names.
Topology named_topology(const std::string& name, int64_t layers, int64_t experts, int64_t group,
                        int64_t ring = 0);
std::vector<std::string> topology_names();

/// pi_l of every layer. Throws Error "[plan] ..." naming layers and numbers: repeated expert in a
/// window, a window that misses an own expert, clamp with stride > 1; and for similarity, whose
/// slots no parameters make.
Slots make_slots(const Topology& topology);

/// Path bits: sum_l log2 C(s_l, K).
double path_bits(const Slots& slots, int64_t experts_per_token);

Plan make_plan(const Checkpoint& source, const Family& family, const Statistics* statistics,
               const PlanOptions& options);

/// What a source is, for refusing a plan made for another: SHA-256 over config, tensor table and
/// router rows.
std::string fingerprint(const Checkpoint& source, const Family& family);

void write_plan(const Plan& plan,
                const std::filesystem::path& file);  ///< plan.json, and plan.svg beside it
Plan read_plan(const std::filesystem::path& file);
Report report_of(const Plan& plan, const Checkpoint& source);

/// Topologies side by side under otherwise equal options: slots, exposure, components, path bits,
/// router bytes, likeness of donors where it is known. Empty `names`: all of them, similarity only
/// where its scores were measured.
Report compare_plans(const Checkpoint& source, const Family& family, const Statistics* statistics,
                     const PlanOptions& options, const std::vector<std::string>& names);
/// Layers by experts: who sees whom.
std::string picture_of(const Plan& plan);

}  // namespace moue
