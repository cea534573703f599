// Choosing: logits of home and foreign slots, gates, the trajectory state. docs/method.md sections
// 4-6.
#pragma once

#include <ATen/core/Tensor.h>

#include "model/experts.h"
#include "moue/model.h"

namespace moue {

/// What a layer's router needs beside its input. Undefined tensors where the model has none.
struct RouterInputs {
  at::Tensor home_TN;         ///< logits, bias included, in the dtype of the router's product
  at::Tensor foreign_TS;      ///< [T, S - N] the same
  at::Tensor bonus_TS;        ///< float32 [T, S] trajectory bonus
  at::Tensor beta;            ///< float32 [S - N]
  at::Tensor scale;           ///< float32 [S - N], a
  at::Tensor log_visibility;  ///< float32 [S]
  at::Tensor correction;      ///< float32 [S] the family's selection bias
  at::Tensor pool_bias;       ///< float32 [S], gathered for this layer's slots
};

struct Choice {
  Routed routed;
  at::Tensor gate_TK;    ///< differentiable
  at::Tensor weight_TK;  ///< differentiable: gate times a
};

/// balance: where backward finds v for this layer (index moe_layer), or null.
Choice choose(const RouterInputs& inputs, const RouterSpec& rule, int64_t experts_per_token,
              int64_t moe_layer, const Pass& pass);

/// What home slots are chosen by while foreign ones are closed: logits z_TN [T, N], or their
/// sigmoids plus the correction ([S], may be undefined); -inf in groups that are not kept.
at::Tensor home_keys(const at::Tensor& z_TN, const at::Tensor& correction, const RouterSpec& rule);

/// r [T, dim] = sum over chosen of gate * key[slot]; key_SD [S, dim] of the layer's slots.
at::Tensor trajectory_read(const at::Tensor& gate_TK, const at::Tensor& key_SD,
                           const at::Tensor& chosen_TK, const Permutation& permutation);

}  // namespace moue
