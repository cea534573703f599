// Held-out loss.
#include <cmath>

#include "model/torch.h"
#include "moue/model.h"

namespace moue {

Evaluation evaluate(Model& model, const at::Tensor& windows_NT1, int64_t batch) {
  const at::NoGradGuard no_grad;
  Evaluation result;
  double sum = 0, squares = 0, foreign = 0, choices = 0;
  const int64_t windows = windows_NT1.size(0), length = windows_NT1.size(1) - 1;
  for (int64_t begin = 0; begin < windows; begin += batch) {
    const int64_t rows = std::min(batch, windows - begin);
    Pass pass;
    model.loss(windows_NT1.narrow(0, begin, rows), {}, 1.0, pass);
    const at::Tensor per_window = pass.token_loss.view({rows, length}).sum(1, false, at::kDouble);
    sum += per_window.sum().item<double>();
    squares += per_window.square().sum().item<double>();
    for (const Routed& routed : pass.routed) {
      const double all = routed.count_S.sum().item<double>();
      choices += all;
      foreign +=
          all - routed.count_S.narrow(0, 0, model.pool().experts_per_layer).sum().item<double>();
    }
  }
  result.tokens = windows * length;
  result.loss = sum / static_cast<double>(result.tokens);
  const double mean = sum / windows, variance = std::max(0.0, squares / windows - mean * mean);
  result.standard_error = windows > 1 ? std::sqrt(variance / (windows - 1)) / length : 0;
  result.foreign_share = choices > 0 ? foreign / choices : 0;
  return result;
}

}  // namespace moue
