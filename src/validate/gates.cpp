// The gates that run models: what they are given, in which order they run.
#include "model/windows.h"
#include "moue/error.h"
#include "moue/family.h"
#include "validate/model.h"

namespace moue {
namespace {

constexpr int64_t kSeededTokens = 512;
constexpr uint64_t kSmallModel = uint64_t{1} << 30;  // bytes; below it float32 costs nothing

// Weights take what activations leave: a quarter of the ceiling, at least, stays free for them.
uint64_t weight_ceiling(uint64_t memory, uint64_t model) {
  return model < memory / 4 ? 0 : memory - memory / 4;
}

std::string dtype_name_of(const ValidateOptions& options, const Checkpoint& original) {
  if (!options.dtype.empty()) return options.dtype;
  const std::string stored =
      original.config().string("dtype", original.config().string("torch_dtype", "float32"));
  return stored == "bfloat16" && original.data_bytes() >= kSmallModel ? "bfloat16" : "float32";
}

at::Tensor windows_for(const ValidateOptions& options, int64_t vocabulary) {
  if (options.tokens.empty()) return seeded_window(kSeededTokens, vocabulary, 0);
  const TokenFile tokens =
      open_tokens(options.tokens, options.token_type, options.length, vocabulary);
  const int64_t most =
      options.max_tokens > 0 ? std::max<int64_t>(1, options.max_tokens / options.length) : 0;
  return windows_of(tokens, options.length, most);
}

}  // namespace

void validate_model(const Checkpoint& original, const Checkpoint& result,
                    const ValidateOptions& options, bool equality, Report& report) {
  set_threads(options.threads);
  const ModelSpec spec = family_of(original.config()).spec(original.config());
  const std::string dtype = dtype_name_of(options, original);
  const at::Tensor windows = windows_for(options, spec.vocabulary);
  GateRun run{original, result, options, {}, windows};
  run.how.dtype = scalar_type(dtype);
  run.how.device = device_of(options.device);
  run.how.memory =
      weight_ceiling(options.memory, original.data_bytes() * (dtype == "float32" ? 2 : 1));
  report.facts.push_back({"dtype", dtype, ""});
  report.facts.push_back(
      {"tokens", run.windows_NT1.size(0) * (run.windows_NT1.size(1) - 1), "tok"});
  if (equality) equality_gate(run, report);
  reference_gate(run, report);
  text_gate(run, report);
}

}  // namespace moue
