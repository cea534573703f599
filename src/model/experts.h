// The expert block: chosen experts of a layer over a table of physical experts, with a hand-written
// backward.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

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

/// The experts behind a layer's slots, fetched one at a time, and the norm gains they are fed
/// through.
struct ExpertTable {
  std::function<Expert(int64_t slot)> expert;
  std::vector<at::Tensor> gain;       ///< [S] of [D], arithmetic dtype
  std::vector<at::Tensor> gain_grad;  ///< [S] of [D] float32; undefined where nothing is trained
  int64_t expert_width = 0;           ///< F
};

/// y[t] = sum over chosen of weight * E_p(gain_p * xhat[t]); xhat [T, D], weight [T, K] float32, y
/// [T, D]. Backward saves xhat, the pre-activations and the permutation only, and adds the experts'
/// and gains' gradients where the table says.
at::Tensor expert_block(const at::Tensor& xhat_TD, const at::Tensor& weight_TK,
                        const Permutation& permutation, const ExpertTable& table);

/// The same rows before gate and sum: [R, D], for measuring.
at::Tensor expert_rows(const at::Tensor& xhat_TD, const Permutation& permutation,
                       const ExpertTable& table);

}  // namespace moue
