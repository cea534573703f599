// The expert block: chosen experts of a layer over a table of physical experts, with a hand-written
// backward.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

#include "model/activation.h"
#include "model/weights.h"

namespace moue {

/// The permutation of one layer's choices. R = T K rows, sorted by slot, then token.
struct Permutation {
  at::Tensor token_of_row;          ///< int32 [R]
  at::Tensor slot_of_row;           ///< int32 [R]
  at::Tensor row_of;                ///< int32 [T, K]
  at::Tensor count;                 ///< int64 [S], where the tokens are
  std::vector<int64_t> host_count;  ///< the same, on the host
};
Permutation make_permutation(const at::Tensor& chosen_TK, const at::Tensor& count_S);

/// The experts behind a layer's slots, fetched one at a time, and the second halves of the norms
/// they are fed through.
struct ExpertTable {
  std::function<Expert(int64_t slot)> expert;
  std::vector<at::Tensor> gain;       ///< [S] of [D], arithmetic dtype
  std::vector<at::Tensor> gain_grad;  ///< [S] of [D] float32; undefined where nothing is trained
  std::vector<at::Tensor> bias, bias_grad;  ///< the same; empty where the norms have none
  int64_t expert_width = 0;                 ///< F
  ActivationSpec activation;
  bool is_resident = true;  ///< `expert` may be called from several threads
};

/// y[t] = sum over chosen of weight * E_p(gain_p * xhat[t] + bias_p); xhat [T, D] in the arithmetic
/// dtype or float32, weight [T, K] float32, y [T, D]. Backward saves xhat, the pre-activations and
/// the permutation only, and adds the experts' and norms' gradients where the table says.
at::Tensor expert_block(const at::Tensor& xhat_TD, const at::Tensor& weight_TK,
                        const Permutation& permutation, const ExpertTable& table);

/// The same rows before weight and sum: [R, D], for measuring.
at::Tensor expert_rows(const at::Tensor& xhat_TD, const Permutation& permutation,
                       const ExpertTable& table);

}  // namespace moue
