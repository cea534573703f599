// How alike experts of different layers are on a model's own tokens, and what it costs to put one
// in another's place.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "moue/model.h"
#include "moue/statistics.h"

namespace moue {

struct Likeness {
  Similarity similarity;
  /// Linear CKA of each own expert with each donor, per MoE layer: float64 [N, (2 reach + 1) N];
  /// column (m - l + reach) N + e is expert e of layer m, Similarity::kUnknown where there is none.
  std::vector<at::Tensor> cka_NR;
};

/// On `samples` tokens spread over the windows (int64 [n, length + 1]): own experts and donors of a
/// layer get the same inputs, each behind its home layer's norm. Cost: samples times (2 reach + 1)
/// expert products for each expert.
Likeness compare_experts(Model& model, const at::Tensor& windows_NT1, int64_t batch, int64_t reach,
                         int64_t samples);

/// Draws `trials` experts with some load; each is answered for by its best donor within reach, then
/// by any other within reach, over all windows, its output times a = R_l / R_home(p).
std::vector<Replacement> try_replacements(Model& model, const Likeness& likeness,
                                          const Statistics& measured, const at::Tensor& windows_NT1,
                                          int64_t batch, int64_t trials);

}  // namespace moue
