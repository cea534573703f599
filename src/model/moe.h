// One universal MoE block: normalise, choose, run the experts, carry the trajectory state.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <utility>

#include "model/experts.h"
#include "model/weights.h"

namespace moue {

/// What MoE blocks share for a whole model: slots, homes and what the visibility makes of them.
struct MoeContext {
  const ModelSpec* spec = nullptr;
  const Pool* pool = nullptr;
  bool is_moue = false;
  Weights* weights = nullptr;
  std::vector<at::Tensor> slot_index;  ///< int64 [S] physical expert of each slot, per MoE layer
  std::vector<at::Tensor> log_visibility;  ///< float32 [S]
  at::Tensor pool_bias;                    ///< float32 [P]
  std::vector<at::Tensor> correction;      ///< float32 [S] per MoE layer; undefined without one
  /// Of (MoE layer, slot), 1 where absent; for measuring an ordinary model.
  std::map<std::pair<int64_t, int64_t>, double> output_scale;
};

/// What a block computes, and the normalised input it computed it from.
struct Block {
  at::Tensor output, input;
  at::Tensor z_loss;  ///< scalar; undefined where the pass asks for none
};

/// hidden [T, D] -> routed experts, shared expert and bias of the layer. `state` [T, state_dim] is
/// read and replaced (undefined: no trajectory).
Block moe_block(const at::Tensor& hidden_TD, int64_t moe_layer, at::Tensor& state,
                const MoeContext& context, Pass& pass);

/// Experts and norms behind the slots of a layer.
ExpertTable expert_table(int64_t moe_layer, const MoeContext& context);

}  // namespace moue
