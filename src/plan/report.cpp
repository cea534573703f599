// What plan prints: slots, sharing, exposure, components, path bits and what convert will write.
#include "moue/plan.h"
#include "plan/cost.h"
#include "pool/summary.h"

#include <algorithm>

namespace moue {

namespace {

void add_scores(const PlanScores& scores, Report& report) {
  double mean = 0;
  Table table{"scores", "Likeness of foreign experts", {"MoE layer", "best", "mean", "worst"}, {}};
  for (const LayerScores& layer : scores.layers) {
    mean += layer.mean / static_cast<double>(scores.layers.size());
    table.rows.push_back({layer.layer, layer.best, layer.mean, layer.worst});
  }
  report.facts.push_back({"likeness", mean, "mean of donors"});
  report.facts.push_back({"likeness_kind", scores.kind, ""});
  report.facts.push_back({"likeness_inputs", scores.inputs, ""});
  report.facts.push_back({"likeness_samples", scores.samples, ""});
  report.tables.push_back(std::move(table));
}

}  // namespace

Report report_of(const Plan& plan, const Checkpoint& source) {
  const Family& family = family_of(source.config());
  const ModelSpec spec = family.spec(source.config());
  const Pool& pool = plan.pool;
  const Claims claims = claim(source, family);
  const Cost cost = cost_of(pool, source, claims, spec);
  Report report;
  report.verb = "plan";
  report.title = source.directory().string() + ", " + pool.topology.name;
  report.facts = pool_facts(pool);
  report.facts.push_back({"path_bits", path_bits(pool.slots, spec.experts_per_token), "bit"});
  report.facts.push_back(
      {"path_bits_source",
       path_bits(vanilla_pool(source.config(), spec).slots, spec.experts_per_token), "bit"});
  report.facts.push_back({"new_bytes", cost.new_bytes, "B"});
  if (pool.num_new() > 0) report.facts.push_back({"new_expert_bytes", cost.expert_bytes, "B"});
  report.facts.push_back(
      {"new_share", static_cast<double>(cost.new_bytes) / static_cast<double>(source.data_bytes()),
       "of the source's bytes"});
  report.facts.push_back({"router_bytes", cost.router_bytes, "B"});
  report.facts.push_back({"router_share", cost.router_share, "of a token's active parameters"});
  report.facts.push_back({"fingerprint", plan.fingerprint, ""});
  report.tables.push_back(slots_table(pool));
  if (plan.scores) add_scores(*plan.scores, report);
  report.pictures.push_back({"Who sees whom", picture_of(plan)});
  report.warnings = plan.notes;
  const std::string warning = router_warning(cost);
  if (!warning.empty()) report.warnings.push_back(warning);
  return report;
}

}  // namespace moue
