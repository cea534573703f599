// The first stage of an upgrade.
#include "train/calibrate.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "model/statistics.h"
#include "model/windows.h"
#include "moue/log.h"

namespace moue {

void calibrate(Model& model, const TokenFile& tokens, const TrainOptions& options) {
  const int64_t most = std::max<int64_t>(1, options.calibrate.tokens / options.length);
  const int64_t batch = options.micro_batch > 0 ? options.micro_batch : options.batch;
  const Statistics statistics = collect_statistics(model, &model.pool(), options.calibrate.eps,
                                                   windows_of(tokens, options.length, most), batch);
  for (Parameter& parameter : model.parameters()) {
    const bool is_bias = parameter.kind == ParameterKind::RouterBias;
    if (!is_bias && parameter.kind != ParameterKind::RouterScale) continue;
    const auto& rows = is_bias ? statistics.beta : statistics.scale;
    parameter.master.copy_(at::tensor(rows[parameter.moe_layer], at::kDouble));
  }
  for (size_t layer = 0; layer < statistics.correction.size(); ++layer) {
    const std::vector<double>& rows = statistics.correction[layer];
    const auto foreign = static_cast<int64_t>(rows.size());
    model.correction(static_cast<int64_t>(layer))
        .narrow(0, model.pool().experts_per_layer, foreign)
        .copy_(at::tensor(rows, at::kDouble));
  }
  model.refresh_values();
  log_line("train", "calibrated {} and a of {} MoE layers on {} tokens",
           statistics.correction.empty() ? "beta" : "c", statistics.beta.size(), statistics.tokens);
}

}  // namespace moue
