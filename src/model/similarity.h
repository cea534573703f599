// How alike experts of different layers are on a model's own tokens, and what it costs to put one
// in another's place.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "moue/model.h"
#include "moue/statistics.h"

namespace moue {

struct CompareOptions {
  std::string kind;  ///< of Similarity
  int64_t reach = 1;
  int64_t samples = 2;
};

struct Likeness {
  Similarity similarity;
  /// Score of each donor for each own expert, per MoE layer: float64 [N, (2 reach + 1) N]; column
  /// (m - l + reach) N + e is expert e of layer m, Similarity::kUnknown where there is none.
  std::vector<at::Tensor> score_NR;
};

/// On `samples` tokens spread over the windows (int64 [n, length + 1]): own experts and donors of a
/// layer get the same inputs, each behind its home layer's norm. Cost: samples times (2 reach + 1)
/// expert products for each expert. "output" compares on the tokens that chose the own expert; one
/// that none of them chose has no scores.
Likeness compare_experts(Model& model, const Statistics& measured, const at::Tensor& windows_NT1,
                         int64_t batch, const CompareOptions& options);

/// Draws `trials` experts with some load; each is answered for by its best donor within reach, then
/// by any other within reach, over all windows, its output times a = R_l / R_home(p).
std::vector<Replacement> try_replacements(Model& model, const Likeness& likeness,
                                          const Statistics& measured, const at::Tensor& windows_NT1,
                                          int64_t batch, int64_t trials);

/// Another expert in a slot, until the end of the scope; its output times `scale`.
class InSlot {
 public:
  InSlot(Model& model, int64_t moe_layer, int64_t slot, int64_t physical, double scale = 1);
  ~InSlot();
  InSlot(const InSlot&) = delete;
  InSlot& operator=(const InSlot&) = delete;

 private:
  Model& model_;
  int64_t moe_layer_, slot_, own_;
};

}  // namespace moue
