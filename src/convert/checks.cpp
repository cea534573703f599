// Whether source, plan and statistics belong together.
#include "convert/checks.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "convert/layout.h"
#include "core/text.h"
#include "moue/error.h"

namespace moue {

namespace {

// As much of a fingerprint as a message needs.
std::string_view short_print(const std::string& fingerprint) {
  return std::string_view(fingerprint).substr(0, 12);
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

}  // namespace

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

void check_linkable(const Checkpoint& source) {
  if (!source.is_plain()) {
    fail("convert",
         "{} is not in safetensors' form, whose files alone can be linked; add --layout packed",
         source.directory().string());
  }
  std::set<std::string> taken = {kNewFile};
  std::vector<std::string> faults;
  for (const std::string& name : source.file_names()) {
    const bool is_ours = name.starts_with(kExpertFiles);
    if (is_ours || !taken.insert(linked_name(name)).second) faults.push_back(name);
  }
  if (!faults.empty()) {
    fail("convert", "{} has {}, whose name the result needs; rename it in shards and index",
         source.directory().string(), join(faults));
  }
}

}  // namespace moue
