// convert: checks that source, plan and statistics belong together, then writes the new directory
// whole.
#include "moue/convert.h"

#include "convert/job.h"
#include "convert/linked.h"
#include "convert/values.h"
#include "core/staging.h"
#include "core/stop.h"
#include "moue/error.h"
#include "moue/family.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>

namespace moue {

namespace fs = std::filesystem;

namespace {

// As much of a fingerprint as a message needs.
std::string_view short_print(const std::string& fingerprint) {
  return std::string_view(fingerprint).substr(0, 12);
}

void check_plan(const Checkpoint& source, const Family& family, const ModelSpec& spec,
                const Plan& plan) {
  const Pool& pool = plan.pool;
  const std::string directory = source.directory().string();
  if (pool.state != PoolState::Closed) {
    fail("convert", "the plan's state is '{}', wanted 'closed'; make a new plan",
         to_string(pool.state));
  }
  const std::string print = fingerprint(source, family);
  if (plan.fingerprint != print) {
    fail("convert", "the plan was made for source {}, {} is {}; make a plan of this one",
         short_print(plan.fingerprint), directory, short_print(print));
  }
  check_pool(pool, spec.experts_per_token);
  if (pool.moe_layers != spec.moe_layers() || pool.experts_per_layer != spec.experts) {
    fail("convert", "the plan has {} MoE layers of {} experts, {} has {} of {}; make a new plan",
         pool.moe_layers.size(), pool.experts_per_layer, directory, spec.num_moe_layers(),
         spec.experts);
  }
}

void check_measured(const std::vector<std::vector<double>>& by_layer, const Pool& pool,
                    std::string_view what) {
  for (int64_t layer = 0; layer < pool.num_moe_layers(); ++layer) {
    const std::vector<double>& row = by_layer[layer];
    const bool fits = static_cast<int64_t>(row.size()) == pool.num_foreign(layer);
    if (fits && std::ranges::all_of(row, [](double value) { return std::isfinite(value); })) {
      continue;
    }
    fail("convert",
         "the statistics' {} of MoE layer {} has {} numbers, wanted {}, all finite; measure "
         "again",
         what, layer, row.size(), pool.num_foreign(layer));
  }
}

void check_statistics(const Statistics& statistics, const Plan& plan, const ModelSpec& spec) {
  if (statistics.fingerprint != plan.fingerprint) {
    fail("convert", "the statistics were measured on source {}, the plan is of {}; measure again",
         short_print(statistics.fingerprint), short_print(plan.fingerprint));
  }
  if (statistics.slots.empty()) {
    fail("convert",
         "the statistics have no beta and no a: they were measured without a plan; run moue "
         "measure with --plan");
  }
  const size_t layers = plan.pool.slots.size();
  const std::vector<Home> donors(plan.pool.home.begin() + plan.pool.num_source(),
                                 plan.pool.home.end());
  if (statistics.slots != plan.pool.slots || statistics.donors != donors ||
      statistics.beta.size() != layers || statistics.scale.size() != layers ||
      statistics.correction.size() != (spec.router.correction ? layers : 0)) {
    fail("convert",
         "the statistics were measured for another plan; run moue measure with --plan and "
         "the plan to be converted");
  }
  check_measured(statistics.beta, plan.pool, "beta");
  check_measured(statistics.scale, plan.pool, "scale");
  if (spec.router.correction) check_measured(statistics.correction, plan.pool, "correction");
}

Table files_table(const Linked& linked) {
  Table table{"files", "Files of the source", {"file", "from", "how", "bytes"}, {}};
  for (const LinkedFile& file : linked.files) {
    table.rows.push_back(
        {file.name, file.from, std::string(to_string(file.how)), static_cast<int64_t>(file.bytes)});
  }
  return table;
}

// "19 hard links, 1 copy", of shards only.
std::string shards_text(const Linked& linked) {
  std::map<LinkKind, int64_t> counts;
  for (const LinkedFile& file : linked.files) counts[file.how] += file.weights;
  std::string text;
  for (const auto& [how, count] : counts) {
    if (count == 0) continue;
    if (!text.empty()) text += ", ";
    text += fmt::format("{} {}", count, to_string(how));
  }
  return text;
}

bool has_shards(const Linked& linked, LinkKind how) {
  return std::ranges::any_of(
      linked.files, [&](const LinkedFile& file) { return file.weights && file.how == how; });
}

Report report_of(const Checkpoint& source, const Pool& pool, const Linked& linked,
                 const fs::path& out, double seconds) {
  Report report;
  report.verb = "convert";
  report.title = "Converted " + source.directory().string() + " to " + out.string();
  const auto layers = pool.num_moe_layers();
  report.facts = {
      {"source", source.directory().string(), ""},
      {"out", out.string(), ""},
      {"layout", std::string("linked"), ""},
      {"shards", shards_text(linked), ""},
      {"source_bytes", static_cast<int64_t>(source.data_bytes()), "B"},
      {"bytes_written", static_cast<int64_t>(linked.written), "B"},
      {"moe_layers", layers, ""},
      {"mode", std::string(to_string(pool.mode)), ""},
      {"new_experts", pool.num_new(), ""},
      {"calibrated", pool.calibrated, ""},
      {"state", std::string(to_string(pool.state)), ""},
      {"seconds", seconds, "s"},
      {"go_back",
       fmt::format("the source is as it was: remove {} and nothing is left", out.string()), ""}};
  report.tables.push_back(files_table(linked));
  if (!pool.calibrated) {
    report.warnings.push_back(
        "biases of foreign slots and a are not calibrated: opening may jump (measure --plan, or "
        "the calibrate stage of train)");
  }
  if (has_shards(linked, LinkKind::HardLink)) {
    report.warnings.push_back(
        "shards are hard links: whoever writes into one in place changes the "
        "source too");
  }
  if (has_shards(linked, LinkKind::Symlink)) {
    report.warnings.push_back(
        "shards are symbolic links: moving or removing the source breaks them");
  }
  return report;
}

}  // namespace

Report convert(const Checkpoint& source, const Plan& plan, const Statistics* statistics,
               const fs::path& out, const ConvertOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  if (options.layout != "linked") {
    fail("convert", "no layout '{}'; known: linked", options.layout);
  }
  check_names(source);
  const Family& family = family_of(source.config());
  const ModelSpec spec = family.spec(source.config());
  const Claims claims = claim(source, family);
  check_plan(source, family, spec, plan);
  if (statistics != nullptr) check_statistics(*statistics, plan, spec);
  Pool pool = plan.pool;
  pool.calibrated = statistics != nullptr;

  const StopSignals stop;
  Staging staging(out, job_key(source, pool, statistics, options));
  Linked linked;
  staging.finish([&] {
    const std::vector<NewTensor> experts = new_tensors(claims, pool, spec);
    const uint64_t bytes = bytes_to_write(source, pool, spec, experts);
    require_space(staging.path(), bytes - std::min(bytes, staging.kept_bytes()));
    const auto values =
        closed_values(source, claims, pool, spec, statistics, static_cast<uint64_t>(options.seed));
    linked = write_linked(source, pool, spec, values, experts, options.recipe, staging);
  });
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  return report_of(source, pool, linked, staging.target(), took.count());
}

}  // namespace moue
