// Held-out loss.
#include <cmath>
#include <numeric>

#include "model/torch.h"
#include "moue/model.h"

namespace moue {

namespace {

// Of the mean sum(losses) / sum(counts), as a ratio of two numbers a window.
double standard_error(const std::vector<double>& losses, const std::vector<double>& counts,
                      double mean, double tokens) {
  const auto n = static_cast<double>(losses.size());
  if (losses.size() < 2 || tokens == 0) return 0;
  double squares = 0;
  for (size_t i = 0; i < losses.size(); ++i) {
    const double deviation = losses[i] - mean * counts[i];
    squares += deviation * deviation;
  }
  return std::sqrt(squares * n / (n - 1)) / tokens;
}

void append(std::vector<double>& to, const at::Tensor& values) {
  const at::Tensor host = values.to(at::kCPU, at::kDouble).contiguous();
  to.insert(to.end(), host.data_ptr<double>(), host.data_ptr<double>() + host.numel());
}

}  // namespace

Evaluation evaluate(Model& model, const at::Tensor& windows_NT1, int64_t batch,
                    const at::Tensor& mask_NT) {
  const at::NoGradGuard no_grad;
  Evaluation result;
  std::vector<double> losses, counts;  // of each window
  double foreign = 0, choices = 0;
  const int64_t windows = windows_NT1.size(0), length = windows_NT1.size(1) - 1;
  for (int64_t begin = 0; begin < windows; begin += batch) {
    const int64_t rows = std::min(batch, windows - begin);
    Pass pass;
    const at::Tensor mask = mask_NT.defined() ? mask_NT.narrow(0, begin, rows) : at::Tensor();
    model.loss(windows_NT1.narrow(0, begin, rows), mask, 1.0, pass);
    append(losses, pass.token_loss.view({rows, length}).sum(1, false, at::kDouble));
    append(counts, mask.defined() ? mask.sum(1) : at::full({rows}, length));
    for (const Routed& routed : pass.routed) {
      const double all = routed.count_S.sum().item<double>();
      choices += all;
      foreign +=
          all - routed.count_S.narrow(0, 0, model.pool().experts_per_layer).sum().item<double>();
    }
  }
  const double sum = std::accumulate(losses.begin(), losses.end(), 0.0);
  const double tokens = std::accumulate(counts.begin(), counts.end(), 0.0);
  result.tokens = static_cast<int64_t>(tokens);
  result.loss = tokens > 0 ? sum / tokens : 0;
  result.standard_error = standard_error(losses, counts, result.loss, tokens);
  result.foreign_share = choices > 0 ? foreign / choices : 0;
  return result;
}

}  // namespace moue
