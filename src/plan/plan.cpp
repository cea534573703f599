// Plans: options and a source into slot lists, with every refusal and a note for what a reader
// would not expect.
#include "moue/plan.h"

#include "core/text.h"
#include "moue/error.h"
#include "plan/topology.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace moue {

namespace {

bool overrides_name(const PlanOptions& options) {
  return options.shift || options.window || options.stride || options.origin ||
         !options.boundary.empty();
}

// The named topology with what the options set; notes say what a reader would not expect.
Topology resolved(const ModelSpec& spec, const PlanOptions& options,
                  std::vector<std::string>& notes) {
  const int64_t layers = spec.num_moe_layers(), ring = layers * spec.experts;
  if (options.group && (*options.group < 1 || *options.group > ring)) {
    fail("plan", "group is {}, wanted 1 to {}", *options.group, ring);
  }
  Topology t =
      unlimited_topology(options.topology, layers, spec.experts, options.group.value_or(0));
  if (!options.window && t.window > ring) {
    notes.push_back(fmt::format("the window of {} is limited to the ring's {}", t.window, ring));
    t.window = ring;
  }
  if (options.shift) t.shift = *options.shift;
  if (options.window) t.window = *options.window;
  if (options.stride) t.stride = *options.stride;
  if (options.origin) t.origin = *options.origin;
  if (!options.boundary.empty()) t.boundary = boundary_of(options.boundary);
  if (overrides_name(options)) {
    const Topology plain =
        named_topology(options.topology, layers, spec.experts, options.group.value_or(0));
    const bool differs = t.shift != plain.shift || t.window != plain.window ||
                         t.stride != plain.stride || t.origin != plain.origin ||
                         t.boundary != plain.boundary;
    if (differs) t.name = "custom";
  }
  if (t.shift != 0 && t.group > 1 && layers % t.group != 0) {
    notes.push_back(fmt::format(
        "{} layers are no multiple of the group of {}: the last block {}", layers, t.group,
        t.boundary == Boundary::Ring ? "wraps round the ring" : "overlaps the one before"));
  }
  return t;
}

void refuse_oversharing(const Pool& pool, int64_t cap) {
  if (cap == 0) return;
  const std::vector<int64_t> c = sharing(pool.slots, pool.num_physical());
  std::vector<std::string> faults;
  for (size_t p = 0; p < c.size(); ++p) {
    if (c[p] <= cap) continue;
    faults.push_back(fmt::format("expert {} (layer {}, expert {}) is listed by {}", p,
                                 pool.home[p].layer, pool.home[p].expert, c[p]));
  }
  if (faults.empty()) return;
  fail("plan",
       "{} of {} experts are listed by more layers than max_sharing {}: {}; narrow the window",
       faults.size(), c.size(), cap, join_some(faults, 8));
}

void check_options(const PlanOptions& options) {
  std::vector<std::string> faults;
  if (options.state_dim < 1 || options.state_dim > kMaxStateDim) {
    faults.push_back(
        fmt::format("state_dim is {}, wanted 1 to {}", options.state_dim, kMaxStateDim));
  }
  if (options.max_sharing < 0)
    faults.push_back(fmt::format("max_sharing is {}, wanted 0 or more", options.max_sharing));
  if (!faults.empty()) fail("plan", "{}", join(faults, "; "));
}

void take_statistics(const Statistics& statistics, Plan& plan) {
  if (statistics.fingerprint != plan.fingerprint) {
    fail("plan",
         "the statistics are of another source (fingerprint {}, wanted {}); measure this one",
         printable(statistics.fingerprint), plan.fingerprint);
  }
  plan.notes.push_back(
      "the statistics do not change this topology; convert uses them for beta and a");
}

}  // namespace

Plan make_plan(const Checkpoint& source, const Family& family, const Statistics* statistics,
               const PlanOptions& options) {
  check_options(options);
  if (is_moue(source.config())) {
    fail("plan", "{} is a MoUE already, wanted a source model; plan for the model it was made from",
         source.directory().string());
  }
  claim(source, family);
  const ModelSpec spec = family.spec(source.config());
  Plan plan;
  plan.pool = vanilla_pool(source.config(), spec);
  plan.pool.topology = resolved(spec, options, plan.notes);
  plan.pool.slots = make_slots(plan.pool.topology);
  plan.pool.state_dim = options.state_dim;
  plan.pool.foreign_input = foreign_input_of(options.foreign_input);
  check_pool(plan.pool, spec.experts_per_token);
  refuse_oversharing(plan.pool, options.max_sharing);
  plan.fingerprint = fingerprint(source, family);
  if (statistics) take_statistics(*statistics, plan);
  return plan;
}

}  // namespace moue
