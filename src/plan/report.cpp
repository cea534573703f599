// What plan prints: slots, sharing, exposure, components, path bits and what convert will write.
#include "family/count.h"
#include "moue/plan.h"
#include "pool/summary.h"

namespace moue {

namespace {

struct Cost {
  int64_t bytes = 0;   // new tensors, float32
  int64_t router = 0;  // router rows of all layers, home and foreign
};

Cost cost_of(const Pool& pool, int64_t width) {
  Cost cost;
  for (const PoolTensor& tensor : pool_tensors(pool, width)) {
    int64_t elements = 1;
    for (int64_t size : tensor.shape) elements *= size;
    cost.bytes += 4 * elements;
  }
  for (const std::vector<int32_t>& layer : pool.slots)
    cost.router += static_cast<int64_t>(layer.size()) * width;
  return cost;
}

}  // namespace

Report report_of(const Plan& plan, const Checkpoint& source) {
  const Family& family = family_of(source.config());
  const ModelSpec spec = family.spec(source.config());
  const Counts counts = count_parameters(source, claim(source, family), spec);
  const Pool& pool = plan.pool;
  const Cost cost = cost_of(pool, spec.width),
             before = cost_of(vanilla_pool(source.config(), spec), spec.width);
  const int64_t active = counts.active + cost.router - before.router;
  Report report;
  report.verb = "plan";
  report.title = source.directory().string() + ", " + pool.topology.name;
  report.facts = pool_facts(pool);
  report.facts.push_back({"path_bits", path_bits(pool.slots, spec.experts_per_token), "bit"});
  report.facts.push_back(
      {"path_bits_source",
       path_bits(vanilla_pool(source.config(), spec).slots, spec.experts_per_token), "bit"});
  report.facts.push_back({"new_bytes", cost.bytes, "B"});
  report.facts.push_back(
      {"new_share", static_cast<double>(cost.bytes) / static_cast<double>(source.data_bytes()),
       "of the source's bytes"});
  report.facts.push_back({"router_share",
                          static_cast<double>(cost.router) / static_cast<double>(active),
                          "of a token's active parameters"});
  report.facts.push_back({"fingerprint", plan.fingerprint, ""});
  report.tables.push_back(slots_table(pool));
  report.pictures.push_back({"Who sees whom", picture_of(plan)});
  report.warnings = plan.notes;
  return report;
}

}  // namespace moue
