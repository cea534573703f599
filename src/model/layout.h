// Which tensors on disk make up each parameter of the model.
#pragma once

#include <map>
#include <utility>
#include <vector>

#include "moue/model.h"

namespace moue {

/// What a parameter is for. Layers count all layers for base weights, MoE layers for the pool's.
enum class Weight : uint8_t {
  Embedding,
  Head,
  HeadBias,
  FinalNorm,
  FinalNormBias,
  AttentionNorm,
  AttentionNormBias,
  Qkv,
  QkvBias,
  AttentionOutput,
  AttentionOutputBias,
  QueryNorm,
  KeyNorm,
  Sinks,
  QueryDown,
  QueryDownBias,
  QueryDownNorm,
  QueryUp,  ///< from the rank, or straight from the input
  KeyValueDown,
  KeyValueDownBias,
  KeyValueDownNorm,
  KeyValueUp,
  LinearInput,
  LinearNorm,
  LinearGate,
  LinearOutput,
  AttentionRouter,
  AttentionExpertInput,
  AttentionExpertOutput,
  AttentionExpertsBias,
  KeyValue,
  MlpNorm,
  MlpNormBias,
  MlpBias,
  DenseGateUp,
  DenseDown,
  SharedGateUp,
  SharedDown,
  SharedMix,
  Router,
  HomeRouterBias,
  ExpertGateUp,
  ExpertDown,
  ExpertGateUpBias,
  ExpertDownBias,
  ForeignRows,
  RouterBias,  ///< beta of foreign slots
  RouterScale,
  Gain,
  Key,
  Query,
  Decay,
};

/// A parameter that is not yet loaded.
struct WeightPlan {
  std::string name{};
  ParameterKind kind = ParameterKind::Matrix;
  int64_t moe_layer = -1;
  bool always_float32 = false;  ///< the pool's own tensors
  std::vector<int64_t> shape{};
  std::vector<DiskTensor> disk{};
  int64_t numel() const;
};

struct WeightLayout {
  std::vector<WeightPlan> plans;
  std::map<std::pair<Weight, int64_t>, int64_t> index;  ///< (weight, layer or -1) -> plans

  /// -1 where the model has no such weight.
  int64_t find(Weight weight, int64_t layer = -1) const;
};

/// Fused in memory: q, k, v in one [(H + 2G) A, D]; gate and up in one [2F, D]; all experts in [P,
/// 2F, D] and [P, D, F]; on disk each keeps its own name.
WeightLayout make_layout(const Checkpoint& checkpoint, const Claims& claims, const ModelSpec& spec,
                         const Pool& pool, bool is_moue);

}  // namespace moue
