// Topologies side by side.
#include "core/text.h"
#include "moue/error.h"
#include "plan/cost.h"
#include "plan/planner.h"
#include "plan/similarity.h"
#include "pool/summary.h"

#include <algorithm>

namespace moue {

namespace {

constexpr const char* kUnknown = "-";

// Mean score of the foreign slots whose score is known, and of how many it is not.
struct Likeness {
  double mean = 0;
  int64_t known = 0, unknown = 0;
};

Likeness likeness_of(const Pool& pool, const Similarity& similarity) {
  Likeness result;
  for (int64_t layer = 0; layer < pool.num_moe_layers(); ++layer) {
    const std::vector<int32_t>& slots = pool.slots[layer];
    for (size_t slot = pool.experts_per_layer; slot < slots.size(); ++slot) {
      const double score = score_at(similarity, pool, layer, slots[slot]);
      if (score == Similarity::kUnknown) {
        ++result.unknown;
      } else {
        ++result.known;
        result.mean += score;
      }
    }
  }
  if (result.known > 0) result.mean /= static_cast<double>(result.known);
  return result;
}

class Comparison {
 public:
  explicit Comparison(Planner& planner) : planner_(planner) {
    report_.verb = "plan";
    report_.title = "Topologies of " + planner.source().directory().string();
    table_ = {"topologies",
              "Topologies",
              {"topology", "slots min", "slots max", "exposure min", "exposure max", "components",
               "path bits", "router bytes", "router share", "new bytes", "likeness", "parameters"},
              {}};
  }

  /// A topology that the options make impossible is a warning.
  void add(const std::string& name) {
    try {
      add_row(name, planner_.make(name));
    } catch (const Error& error) {
      report_.warnings.push_back(fmt::format("{} is left out: {}", name, error.what()));
    }
  }

  Report finish() {
    if (table_.rows.empty()) {
      fail("plan", "none of the topologies can be made: {}", join_some(report_.warnings));
    }
    report_.facts = {{"topologies", static_cast<int64_t>(table_.rows.size()), ""},
                     {"source", planner_.source().directory().string(), ""}};
    report_.tables.push_back(std::move(table_));
    return std::move(report_);
  }

  Report& report() { return report_; }

 private:
  void add_row(const std::string& name, const Plan& plan) {
    const Pool& pool = plan.pool;
    const Cost cost = cost_of(pool, planner_.source(), planner_.claims(), planner_.spec());
    const std::vector<Fact> facts = pool_facts(pool);
    std::vector<Value> row = {name};
    const auto copy = [&](std::string_view key) {
      row.push_back(std::ranges::find(facts, key, &Fact::key)->value);
    };
    for (const char* key :
         {"slots_min", "slots_max", "exposure_min", "exposure_max", "components"}) {
      copy(key);
    }
    row.insert(row.end(),
               {path_bits(pool.slots, planner_.spec().experts_per_token), cost.router_bytes,
                cost.router_share, cost.new_bytes, likeness(name, pool)});
    copy("topology_parameters");
    table_.rows.push_back(std::move(row));
    for (const std::string& note : plan.notes) report_.warnings.push_back(name + ": " + note);
    const std::string warning = router_warning(cost);
    if (!warning.empty()) report_.warnings.push_back(name + ": " + warning);
  }

  Value likeness(const std::string& name, const Pool& pool) {
    if (!planner_.knows_similarity()) return kUnknown;
    const Likeness found = likeness_of(pool, planner_.similarity());
    if (found.known == 0) return kUnknown;
    if (found.unknown > 0) {
      report_.warnings.push_back(fmt::format(
          "{}: {} of {} foreign slots are beyond the reach of {} and not in its likeness", name,
          found.unknown, found.known + found.unknown, planner_.similarity().reach));
    }
    return found.mean;
  }

  Planner& planner_;
  Table table_;
  Report report_;
};

void refuse_unknown(const std::vector<std::string>& names) {
  const std::vector<std::string> known = topology_names();
  std::vector<std::string> faults;
  for (const std::string& name : names) {
    if (std::ranges::find(known, name) == known.end()) faults.push_back(in_quotes(name));
  }
  if (faults.empty()) return;
  fail("plan", "compare names {}, wanted some of: {}", join_some(faults), join(known));
}

}  // namespace

Report compare_plans(const Checkpoint& source, const Family& family, const Statistics* statistics,
                     const PlanOptions& options, const std::vector<std::string>& asked) {
  refuse_unknown(asked);
  Planner planner(source, family, statistics, options);
  Comparison comparison(planner);
  std::vector<std::string> names = asked.empty() ? topology_names() : asked;
  const auto similarity = std::ranges::find(names, "similarity");
  const bool can_score = mode_of(options.mode) == Mode::Reuse;
  if (asked.empty() && !(planner.knows_similarity() && can_score)) {
    names.erase(similarity);
    if (can_score) {
      comparison.report().warnings.push_back(
          "similarity is left out: its scores read every expert; name it, or give statistics that "
          "hold them");
    }
  } else if (similarity != names.end() && can_score) {
    planner.similarity();  // so that every topology's likeness is known
  }
  for (const std::string& name : names) comparison.add(name);
  return comparison.finish();
}

}  // namespace moue
