// Plans: options and a source into slot lists, with every refusal and a note for what a reader
// would not expect.
#include "moue/plan.h"

#include "core/text.h"
#include "moue/error.h"
#include "plan/donors.h"
#include "plan/planner.h"
#include "plan/similarity.h"
#include "plan/topology.h"

#include <algorithm>

namespace moue {

namespace {

constexpr const char* kSimilarity = "similarity";
constexpr int64_t kMostNew = int64_t{1} << 20;
constexpr int64_t kMostSamples = 4096;

bool overrides_name(const PlanOptions& options) {
  return options.shift || options.window || options.stride || options.origin ||
         !options.boundary.empty();
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
  const auto within = [&](const char* name, int64_t value, int64_t low, int64_t high) {
    if (value < low || value > high)
      faults.push_back(fmt::format("{} is {}, wanted {} to {}", name, value, low, high));
  };
  const bool expands = mode_of(options.mode) == Mode::Expand;
  within("state_dim", options.state_dim, 1, kMaxStateDim);
  if (options.max_sharing < 0)
    faults.push_back(fmt::format("max_sharing is {}, wanted 0 or more", options.max_sharing));
  if (expands) within("experts", options.experts, 1, kMostNew);
  if (!expands && options.experts != 0) {
    faults.push_back(
        fmt::format("experts is {}, wanted 0 in mode reuse, which adds none; choose "
                    "mode expand",
                    options.experts));
  }
  within("samples", options.samples, 2, kMostSamples);
  if (options.reach) within("reach", *options.reach, 1, 65536);
  if (!faults.empty()) fail("plan", "{}", join(faults, "; "));
}

// What a score cannot do.
void check_similarity(const PlanOptions& options) {
  std::vector<std::string> faults;
  const auto idle = [&](const char* name, bool is_set) {
    if (is_set) faults.push_back(fmt::format("{} has no meaning, scores choose the donors", name));
  };
  if (mode_of(options.mode) == Mode::Expand)
    faults.push_back("mode is expand, wanted reuse: scores compare the source's own experts");
  idle("group", options.group.has_value());
  idle("shift", options.shift.has_value());
  idle("stride", options.stride.has_value());
  idle("origin", options.origin.has_value());
  idle("boundary", !options.boundary.empty());
  if (!faults.empty()) fail("plan", "topology similarity: {}", join(faults, "; "));
}

}  // namespace

Planner::Planner(const Checkpoint& source, const Family& family, const Statistics* statistics,
                 const PlanOptions& options)
    : source_(source), statistics_(statistics), options_(options) {
  check_options(options);
  if (is_moue(source.config())) {
    fail("plan", "{} is a MoUE already, wanted a source model; plan for the model it was made from",
         source.directory().string());
  }
  claims_ = claim(source, family);
  spec_ = family.spec(source.config());
  fingerprint_ = fingerprint(source, family);
  if (statistics && statistics->fingerprint != fingerprint_) {
    fail("plan",
         "the statistics are of another source (fingerprint {}, wanted {}); measure this one",
         printable(statistics->fingerprint), fingerprint_);
  }
}

// The source's experts, and in expand the new ones behind them.
Pool Planner::empty_pool() {
  Pool pool = vanilla_pool(source_.config(), spec_);
  pool.mode = mode_of(options_.mode);
  pool.state_dim = options_.state_dim;
  pool.foreign_input = foreign_input_of(options_.foreign_input);
  if (pool.mode == Mode::Reuse) return pool;
  if (donors_.empty()) donors_ = choose_donors(source_, claims_, spec_, statistics_, options_);
  pool.home.insert(pool.home.end(), donors_.begin(), donors_.end());
  return pool;
}

int64_t Planner::reach() const {
  return std::min(options_.reach.value_or(kDefaultReach),
                  std::max<int64_t>(1, spec_.num_moe_layers() - 1));
}

// Every named topology shifts its window by the experts of one group of layers, so a shift alone
// says the group too. 0 where it does not.
int64_t Planner::group_of_shift() const {
  const int64_t shift = options_.experts > 0 ? 0 : options_.shift.value_or(0);
  return shift > 0 && shift % spec_.experts == 0 ? shift / spec_.experts : 0;
}

// The named topology with what the options set; notes say what a reader would not expect.
Topology Planner::resolved(const std::string& name, std::vector<std::string>& notes) const {
  const int64_t layers = spec_.num_moe_layers();
  const int64_t ring = options_.experts > 0 ? options_.experts : layers * spec_.experts;
  if (options_.group && (*options_.group < 1 || *options_.group > ring)) {
    fail("plan", "group is {}, wanted 1 to {}", *options_.group, ring);
  }
  const int64_t group = options_.group.value_or(group_of_shift());
  Topology t = unlimited_topology(name, layers, spec_.experts, group, options_.experts);
  if (!options_.window && t.window > ring) {
    notes.push_back(fmt::format("the window of {} is limited to the ring's {}", t.window, ring));
    t.window = ring;
  }
  if (options_.shift) t.shift = *options_.shift;
  if (options_.window) t.window = *options_.window;
  if (options_.stride) t.stride = *options_.stride;
  if (options_.origin) t.origin = *options_.origin;
  if (!options_.boundary.empty()) t.boundary = boundary_of(options_.boundary);
  if (name == kSimilarity) return t;
  if (overrides_name(options_)) {
    const Topology plain = named_topology(name, layers, spec_.experts, group, options_.experts);
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

bool Planner::knows_similarity() const {
  return similarity_ ||
         (options_.scores != "none" && statistics_ && !statistics_->similarity.score.empty());
}

const Similarity& Planner::similarity() {
  if (similarity_) return *similarity_;
  const bool measured = statistics_ && !statistics_->similarity.score.empty();
  if (options_.scores == "data" && !measured) {
    fail("plan",
         "scores of data are wanted, {}; run moue measure with --reach and name its file with "
         "--statistics, or choose scores none",
         statistics_ ? "the statistics have none" : "no statistics are given");
  }
  if (!measured || options_.scores == "none") {
    similarity_ = gaussian_similarity(source_, claims_, spec_, reach(), options_.samples);
    return *similarity_;
  }
  if (statistics_->similarity.reach < reach()) {
    fail("plan", "the statistics' scores reach {} MoE layers, wanted {}; measure with --reach {}",
         statistics_->similarity.reach, reach(), reach());
  }
  similarity_ = statistics_->similarity;
  return *similarity_;
}

void Planner::choose_slots(Plan& plan) {
  Topology& t = plan.pool.topology;
  if (t.name != kSimilarity) {
    plan.pool.slots = make_slots(t);
    return;
  }
  check_similarity(options_);
  t.reach = reach();
  if (t.window < t.experts) {
    fail("plan", "topology similarity: window is {}, wanted at least a layer's own {} experts",
         t.window, t.experts);
  }
  plan.pool.slots = slots_by_score(t, similarity());
  plan.scores = scores_of(plan.pool.slots, similarity());
}

void Planner::note_statistics(Plan& plan) const {
  const bool by_load =
      plan.pool.mode == Mode::Expand && (options_.donors.empty() || options_.donors == "load");
  const bool by_score = plan.scores && plan.scores->inputs == "tokens";
  if (!statistics_ || by_load || by_score) return;
  plan.notes.push_back(
      "the statistics do not change this topology; convert uses them for beta and a");
}

Plan Planner::make(const std::string& topology) {
  Plan plan;
  plan.fingerprint = fingerprint_;
  Topology resolved_topology = resolved(topology, plan.notes);
  plan.pool = empty_pool();
  plan.pool.topology = std::move(resolved_topology);
  choose_slots(plan);
  check_pool(plan.pool, spec_.experts_per_token);
  refuse_oversharing(plan.pool, options_.max_sharing);
  note_statistics(plan);
  return plan;
}

Plan make_plan(const Checkpoint& source, const Family& family, const Statistics* statistics,
               const PlanOptions& options) {
  return Planner(source, family, statistics, options).make(options.topology);
}

}  // namespace moue
