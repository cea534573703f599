// measure: runs a model on tokens.
#include "measure/measure.h"

#include "model/similarity.h"
#include "model/statistics.h"
#include "model/windows.h"
#include "moue/error.h"
#include "moue/family.h"

namespace moue {
namespace {

void check_options(const Checkpoint& source, const MeasureOptions& options) {
  if (options.replace > 0 && options.reach == 0) {
    fail("measure", "replace is {}, wanted 0 while reach is 0; say with --reach how far donors are",
         options.replace);
  }
  if (options.reach > 0 && is_moue(source.config())) {
    fail("measure", "reach is {}, wanted 0: {} is a MoUE; compare the experts of its source",
         options.reach, source.directory().string());
  }
}

void compare(Model& model, const at::Tensor& windows_NT1, const MeasureOptions& options,
             Statistics& statistics) {
  const CompareOptions how{options.likeness, options.reach,
                           options.samples.value_or(options.likeness == "cka" ? 256 : 2048)};
  Likeness likeness = compare_experts(model, statistics, windows_NT1, options.batch, how);
  if (options.replace > 0) {
    statistics.replacements =
        try_replacements(model, likeness, statistics, windows_NT1, options.batch, options.replace);
  }
  statistics.similarity = std::move(likeness.similarity);
}

}  // namespace

Statistics measure_model(const Checkpoint& source, const Plan* plan,
                         const MeasureOptions& options) {
  check_options(source, options);
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
  const at::Tensor windows = windows_of(tokens, options.length, most);
  Statistics statistics =
      collect_statistics(*model, plan ? &plan->pool : nullptr, options.eps, windows, options.batch);
  if (options.reach > 0) compare(*model, windows, options, statistics);
  statistics.fingerprint = print;
  statistics.tokens_name = options.tokens.filename().string();
  return statistics;
}

}  // namespace moue
