// G1: the result computes what the source computes, bit for bit.
#include <fmt/format.h>

#include "model/torch.h"
#include "moue/log.h"
#include "validate/model.h"

namespace moue {
namespace {

constexpr int64_t kTokens = 512;

struct Record {
  at::Tensor logits;
  std::vector<at::Tensor> chosen, gate;
};

Record run_model(const Checkpoint& checkpoint, const ModelOptions& how, const at::Tensor& tokens) {
  const auto model = Model::open(checkpoint, how);
  Pass pass;
  Record record;
  record.logits = model->logits(tokens, pass).cpu();
  for (const Routed& routed : pass.routed) {
    record.chosen.push_back(routed.chosen_TK.cpu());
    record.gate.push_back(routed.gate_TK.cpu());
  }
  return record;
}

// Compared as floats, so that +0 and -0 agree and NaN agrees with nothing.
int64_t differences(const at::Tensor& a, const at::Tensor& b) {
  if (a.sizes() != b.sizes()) return std::max(a.numel(), b.numel());
  return a.ne(b).sum().item<int64_t>();
}

Check compared(const std::string& name, int64_t different, int64_t all, const std::string& first) {
  return {name, different == 0 ? Outcome::Pass : Outcome::Fail, static_cast<double>(different), 0.0,
          different == 0 ? fmt::format("{} numbers equal", all)
                         : fmt::format("{} of {} numbers differ{}", different, all, first)};
}

Check compare_layers(const std::string& name, const std::vector<at::Tensor>& a,
                     const std::vector<at::Tensor>& b) {
  int64_t different = a.size() == b.size() ? 0 : 1, all = 0;
  std::string first;
  for (size_t layer = 0; layer < std::min(a.size(), b.size()); ++layer) {
    const int64_t here = differences(a[layer], b[layer]);
    if (here > 0 && first.empty()) first = fmt::format(", first in MoE layer {}", layer);
    different += here;
    all += a[layer].numel();
  }
  return compared(name, different, all, first);
}

}  // namespace

void equality_gate(const GateRun& run, Report& report) {
  const at::NoGradGuard no_grad;
  const int64_t length = run.windows_NT1.size(1) - 1;
  const int64_t rows = std::max<int64_t>(1, std::min(run.windows_NT1.size(0), kTokens / length));
  const at::Tensor tokens = run.windows_NT1.narrow(0, 0, rows).narrow(1, 0, length);
  log_line("validate", "G1: {} tokens through the source and the result", tokens.numel());
  const Record source = run_model(run.original, run.how, tokens);
  const Record result = run_model(run.result, run.how, tokens);
  report.checks.push_back(
      compared("G1 logits", differences(source.logits, result.logits), source.logits.numel(), ""));
  report.checks.push_back(compare_layers("G1 chosen experts", source.chosen, result.chosen));
  report.checks.push_back(compare_layers("G1 gates", source.gate, result.gate));
}

}  // namespace moue
