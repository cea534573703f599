// A closed MoUE is its source, bit for bit: every topology, dtype, number of threads; and not when
// a slot is opened.
#include "support/torch_test.h"

#include "model/statistics.h"
#include "moue/convert.h"
#include "moue/plan.h"
#include "support/scratch.h"
#include "support/torch_compare.h"

using namespace moue;
using namespace moue::test;
namespace fs = std::filesystem;

namespace {

struct Seen {
  at::Tensor logits;
  std::vector<Routed> routed;
};

Seen run(Model& model, const at::Tensor& tokens) {
  const at::NoGradGuard no_grad;
  Pass pass;
  Seen seen;
  seen.logits = model.logits(tokens, pass);
  seen.routed = pass.routed;
  return seen;
}

bool same(const Seen& a, const Seen& b) {
  bool equal = same_numbers(a.logits, b.logits) && a.routed.size() == b.routed.size();
  for (size_t layer = 0; equal && layer < a.routed.size(); ++layer) {
    equal = same_numbers(a.routed[layer].chosen_TK, b.routed[layer].chosen_TK) &&
            same_numbers(a.routed[layer].gate_TK, b.routed[layer].gate_TK);
  }
  return equal;
}

// Share of the first MoE layer's tokens that choose a foreign slot once everything is open.
double changed(const fs::path& directory, const at::Tensor& tokens, const Seen& closed) {
  const auto model = open_model(directory);
  model->set_visibility(open_visibility(model->pool()));
  const at::Tensor open = run(*model, tokens).routed[0].chosen_TK;
  return open.ne(closed.routed[0].chosen_TK).any(1).to(at::kDouble).mean().item<double>();
}

size_t expert_stack(Model& model) {
  const auto& all = model.parameters();
  return static_cast<size_t>(
      std::find_if(all.begin(), all.end(),
                   [](const Parameter& p) { return p.kind == ParameterKind::Expert; }) -
      all.begin());
}

std::vector<PlanOptions> all_plans() {
  std::vector<PlanOptions> all;
  for (const std::string& topology : topology_names()) {
    if (topology != "similarity") all.push_back({.topology = topology});
  }
  return all;
}

void check_closed(const fs::path& directory, const std::vector<PlanOptions>& plans,
                  const std::vector<int>& thread_counts) {
  const Checkpoint source = open_checkpoint(directory);
  const Family& family = family_of(source.config());
  const at::Tensor tokens =
      at::randint(0, family.spec(source.config()).vocabulary, {3, 57}, at::kLong);
  const ScratchDir scratch;
  for (const PlanOptions& options : plans) {
    const std::string name = options.topology;
    const Plan plan = make_plan(source, family, nullptr, options);
    convert(source, plan, nullptr, scratch / name, {});
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      for (const int threads : thread_counts) {
        INFO(directory << " " << name << " " << dtype << " threads " << threads);
        set_threads(threads);
        const Seen wanted = run(*open_model(directory, {.dtype = dtype}), tokens);
        const auto after = open_model(scratch / name, {.dtype = dtype});
        CHECK(same(run(*after, tokens), wanted));
        if (plan.pool.num_foreign(0) == 0) continue;
        // Control: open, it is another function.
        after->set_visibility(open_visibility(after->pool()));
        CHECK_FALSE(same(run(*after, tokens), wanted));
      }
    }
  }
  set_threads(0);
}

}  // namespace

TEST_CASE("a closed MoUE is bit-equal to its source", "[peer][model]") {
  const fs::path directory =
      GENERATE("examples/tiny-mixtral", "tests/golden/families/mixtral",
               "tests/golden/families/mixtral_sliding_tied", "tests/golden/families/qwen3_moe",
               "tests/golden/moue/aligned/source");
  check_closed(directory, all_plans(), {1, 2});
}

TEST_CASE("so it is in every family", "[peer][model]") {
  const fs::path directory = GENERATE(from_range(golden_families()));
  check_closed(directory, {{.topology = "half_staggered"}, {.topology = "sliding"}}, {2});
}

TEST_CASE("a closed expansion is bit-equal to its source, calibrated or not", "[peer][model]") {
  const fs::path directory = GENERATE(from_range(golden_families()));
  const Checkpoint source = open_checkpoint(directory);
  const at::Tensor rows = at::randint(0, source.config().integer("vocab_size"), {3, 58}, at::kLong);
  const at::Tensor tokens = rows.narrow(1, 0, 57);
  ScratchDir scratch;
  const std::vector<std::pair<std::string, std::string>> kinds = {{"sliding", "even"},
                                                                  {"one_pool", "weight"}};
  for (const auto& [topology, donors] : kinds) {
    const PlanOptions options{
        .mode = "expand", .experts = 5, .donors = donors, .topology = topology};
    const Plan plan = make_plan(source, family_of(source.config()), nullptr, options);
    const auto before = open_model(directory);
    Statistics statistics = collect_statistics(*before, &plan.pool, 0.05, rows, 2);
    statistics.fingerprint = plan.fingerprint;
    convert(source, plan, nullptr, scratch / topology, {});
    convert(source, plan, &statistics, scratch / (topology + "_calibrated"), {});
    const Seen wanted = run(*before, tokens);
    for (const std::string& name : {topology, topology + "_calibrated"}) {
      INFO(directory << " " << name);
      const auto after = open_model(scratch / name);
      CHECK(same(run(*after, tokens), wanted));
      // A new expert computes what its donor computes.
      const Pool& pool = after->pool();
      const Home donor = pool.home[pool.num_source() + 2];
      const at::Tensor gate_up = after->parameters()[expert_stack(*after)].value;
      CHECK(same_numbers(gate_up[pool.num_source() + 2],
                         gate_up[donor.layer * pool.experts_per_layer + donor.expert]));
      // Control: open, it is another function.
      after->set_visibility(open_visibility(pool));
      CHECK_FALSE(same(run(*after, tokens), wanted));
    }
    // Calibration on these very tokens: opening changes the choice of few of them, where copies at
    // equal logit would take the second place.
    const double plain = changed(scratch / topology, tokens, wanted);
    const double calibrated = changed(scratch / (topology + "_calibrated"), tokens, wanted);
    INFO(directory << " changed " << plain << " calibrated " << calibrated);
    CHECK(calibrated < plain);
  }
}
