// measure: runs a model on tokens.
#include "measure/measure.h"

#include "model/statistics.h"
#include "model/windows.h"
#include "moue/error.h"
#include "moue/family.h"

namespace moue {

Statistics measure_model(const Checkpoint& source, const Plan* plan,
                         const MeasureOptions& options) {
  const std::string print = fingerprint(source, family_of(source.config()));
  if (plan && plan->fingerprint != print) {
    fail("measure",
         "the plan is of another source (fingerprint {:.12}), {} has {:.12}; make the plan again",
         plan->fingerprint, source.directory().string(), print);
  }
  set_threads(options.threads);
  const ModelOptions how{.dtype = scalar_type(options.dtype), .device = device_of(options.device)};
  const auto model = Model::open(source, how);
  const TokenFile tokens =
      open_tokens(options.tokens, options.token_type, options.length, model->spec().vocabulary);
  const int64_t most =
      options.max_tokens > 0 ? std::max<int64_t>(1, options.max_tokens / options.length) : 0;
  Statistics statistics =
      collect_statistics(*model, plan ? &plan->pool : nullptr, options.eps,
                         windows_of(tokens, options.length, most), options.batch);
  statistics.fingerprint = print;
  statistics.tokens_name = options.tokens.filename().string();
  return statistics;
}

}  // namespace moue
