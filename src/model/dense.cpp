// FFNs that every token takes: dense blocks and shared experts.
#include "model/dense.h"

#include "model/product.h"
#include "model/torch.h"

namespace moue {

at::Tensor dense_ffn(const at::Tensor& x_TD, const ActivationSpec& activation,
                     const DenseWeights& weights) {
  const at::Tensor y = project(activate(project(x_TD, weights.gate_up), activation), weights.down);
  return weights.mix.defined() ? at::sigmoid(project(x_TD, weights.mix)) * y : y;
}

}  // namespace moue
