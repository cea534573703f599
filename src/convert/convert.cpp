// convert: checks what is asked, then writes the new directory whole.
#include "moue/convert.h"

#include <algorithm>
#include <chrono>

#include "convert/job.h"
#include "convert/report.h"
#include "core/staging.h"
#include "core/stop.h"

namespace moue {

namespace fs = std::filesystem;

namespace {

Report run(const Conversion& conversion, const Statistics* statistics, const fs::path& out,
           const ConvertOptions& options) {
  if (options.dry_run) return dry_report(conversion, out);
  const auto start = std::chrono::steady_clock::now();
  const Job job = conversion.job(conversion.layout());
  const StopSignals stop;
  Staging staging(out, job_key(job, statistics, options));
  Result result;
  staging.finish([&] {
    const uint64_t bytes = bytes_to_write(job);
    require_space(staging.path(), bytes - std::min(bytes, staging.kept_bytes()));
    result = write_result(job, options.recipe, staging);
  });
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  return done_report(conversion, job, result, staging.target(), took.count());
}

}  // namespace

bool needs_plan(const Checkpoint& source, const ConvertOptions& options) {
  return !is_moue(source.config()) && options.layers.empty() && options.layout != "export";
}

Report convert(const Checkpoint& source, const Plan& plan, const Statistics* statistics,
               const fs::path& out, const ConvertOptions& options) {
  return run(Conversion(source, &plan, statistics, options), statistics, out, options);
}

Report convert(const Checkpoint& source, const fs::path& out, const ConvertOptions& options) {
  return run(Conversion(source, nullptr, nullptr, options), nullptr, out, options);
}

}  // namespace moue
