// The router under every family's rule beside sorts, formulas in double and central differences.
#include "support/kernel_test.h"
//
#include <numeric>

#include "support/kernel_router_wanted.h"

using namespace moue;
using namespace moue::test;

namespace {

struct Case {
  int64_t tokens, home, slots, chosen;
};

// Around kRouterTokens; fewer and more slots than a warp; N = S; K = 1, 8, N; many slots.
const std::vector<Case> kCases{{1, 1, 1, 1},     {31, 5, 5, 2},    {33, 8, 32, 2},
                               {32, 24, 24, 8},  {2, 40, 600, 8},  {100, 8, 40, 8},
                               {65, 64, 129, 1}, {2, 40, 127, 40}, {1, 3, 1100, 3}};

// Logits of closed slots are -inf in both, and compared as such.
double logits_error(const RouterInputs& in, const std::vector<float>& got, Values wanted) {
  Values open = doubles(got);
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (in.is_open(static_cast<int64_t>(i) % in.slots)) continue;
    CHECK(open[i] == kClosedSlot);
    open[i] = wanted[i] = 0;
  }
  return max_error(open, wanted);
}

// Where scores or gates are rounded to bfloat16, one of them may lie between two of its numbers.
double bound(const RouterInputs& in, double float32) {
  const bool rounds = in.rule.round_scores || in.rule.round_gates;
  return rounds ? tolerance::of(in.element, float32, tolerance::kBFloat16Twice) : float32;
}

void check(const RouterInputs& in, Where where) {
  CAPTURE(in.tokens, in.home_slots, in.slots, in.chosen, in.element == Element::Float32);
  const RouterOutputs got = run_router(in, where);
  const RouterWanted wanted = wanted_router(in, got.z);
  CHECK(got.chosen == wanted.chosen);
  CHECK(got.count == wanted.count);
  CHECK(logits_error(in, got.z, wanted_logits(in)) <= bound(in, tolerance::kFloat32));
  CHECK(max_error(doubles(got.gate), wanted.gate) <= bound(in, tolerance::kFloat32));
  CHECK(max_error(doubles(got.weight), wanted.weight) <= bound(in, tolerance::kFloat32));
  CHECK(max_error(got.probability, wanted.probability) <= tolerance::kFloat32);
  CHECK(max_error(doubles(got.dz), wanted.dz) <= bound(in, tolerance::kFloat32Sum));
  const double rounding =
      bound(in, tolerance::kFloat32Sum) + tolerance::of(in.element, 0, tolerance::kBFloat16);
  CHECK(max_error(got.dhome, wanted.dhome) <= rounding);
  CHECK(max_error(got.dforeign, wanted.dforeign) <= rounding);
  CHECK(max_error(doubles(got.dbeta), wanted.dbeta) <= bound(in, tolerance::kFloat32Sum));
  CHECK(max_error(doubles(got.dscale), wanted.dscale) <= bound(in, tolerance::kFloat32Sum));
  for (size_t i = 0; i < got.dz.size(); ++i) {
    if (!in.is_open(static_cast<int64_t>(i) % in.slots) && got.dz[i] != 0) FAIL("closed: " << i);
  }
}

void check_all(Where where) {
  for (const NamedRule& rule : router_rules()) {
    INFO(rule.name);
    for (const Case& c : kCases) {
      for (const Element element : kElements)
        check(random_router(c.tokens, c.home, c.slots, c.chosen, element, rule.rule), where);
    }
  }
}

// Each optional input left out by turns.
void check_nulls(Where where) {
  for (const NamedRule& rule : router_rules()) {
    INFO(rule.name);
    for (Values RouterInputs::*optional :
         {&RouterInputs::bonus, &RouterInputs::correction, &RouterInputs::dgate,
          &RouterInputs::dweight, &RouterInputs::balance}) {
      RouterInputs in = random_router(37, 8, 24, 2, Element::Float32, rule.rule);
      (in.*optional).clear();
      check(in, where);
    }
  }
}

void swapped_inputs_show(Where where) {
  const double visible = tolerance::kVisible * tolerance::kFloat32Sum;
  for (const NamedRule& rule : router_rules()) {
    INFO(rule.name);
    const RouterInputs in = random_router(33, 8, 40, 2, Element::Float32, rule.rule);
    const RouterWanted wanted = wanted_router(in, run_router(in, where).z);
    RouterInputs swapped = in;
    std::swap(swapped.dgate, swapped.dweight);
    std::reverse(swapped.beta.begin(), swapped.beta.end());
    std::reverse(swapped.scale.begin(), swapped.scale.end());
    const RouterOutputs got = run_router(swapped, where);
    CHECK(got.chosen != wanted.chosen);
    CHECK(max_error(doubles(got.gate), wanted.gate) > visible);
    CHECK(max_error(doubles(got.weight), wanted.weight) > visible);
    CHECK(max_error(got.probability, wanted.probability) > visible);
    CHECK(max_error(doubles(got.dz), wanted.dz) > visible);
    CHECK(max_error(doubles(got.dbeta), wanted.dbeta) > visible);
    CHECK(max_error(doubles(got.dscale), wanted.dscale) > visible);

    swapped = in;
    std::reverse(swapped.balance.begin(), swapped.balance.end());
    CHECK(max_error(doubles(run_router(swapped, where).dz), wanted.dz) > visible);
    for (Values RouterInputs::*bias : {&RouterInputs::correction, &RouterInputs::pool_bias}) {
      swapped = in;
      std::reverse((swapped.*bias).begin(), (swapped.*bias).end());
      CHECK((in.*bias == swapped.*bias || run_router(swapped, where).chosen != wanted.chosen));
    }
  }
}

// A rule is not its neighbour: each gives other gates or choices than every other one, in bfloat16
// where roundings show.
void rules_differ(Where where) {
  std::vector<RouterOutputs> seen;
  for (const NamedRule& rule : router_rules()) {
    RouterInputs in = random_router(100, 8, 40, 2, Element::BFloat16, rule.rule);
    in.pool_bias = random_values(in.slots, 5, 0.2);
    in.correction = random_values(in.slots, 10, 0.3);
    seen.push_back(run_router(in, where));
  }
  for (size_t a = 0; a < seen.size(); ++a) {
    for (size_t b = 0; b < a; ++b) {
      CAPTURE(router_rules()[a].name, router_rules()[b].name);
      CHECK_FALSE((seen[a].chosen == seen[b].chosen && same_bits(seen[a].weight, seen[b].weight)));
    }
  }
}

// Open foreign slots join each rule: they are chosen, beside the kept groups where there are some;
// of the home slots only those groups are.
void foreign_slots_join(Where where) {
  for (const NamedRule& rule : router_rules()) {
    INFO(rule.name);
    RouterInputs in = random_router(200, 16, 48, 4, Element::Float32, rule.rule);
    const RouterOutputs got = run_router(in, where);
    const auto foreign = std::accumulate(got.count.begin() + 16, got.count.end(), int64_t{0});
    CHECK(foreign > 100);
    CHECK(foreign < 700);
    for (int64_t s = 16; s < 48; s += 4) CHECK(got.count[s] == 0);  // the closed ones
    if (in.rule.groups == 1) continue;
    bool both = false;
    for (int64_t t = 0; t < in.tokens; ++t) {
      std::vector<int32_t> groups, home;
      for (int64_t k = 0; k < 4; ++k) {
        const int32_t slot = got.chosen[t * 4 + k];
        if (slot < 16) home.push_back(slot / 4);
      }
      std::sort(home.begin(), home.end());
      std::unique_copy(home.begin(), home.end(), std::back_inserter(groups));
      if (groups.size() > 2) FAIL("token " << t << " has home slots of three groups");
      both = both || (groups.size() == 2 && home.size() < 4);
    }
    CHECK(both);
    in.rule.groups = in.rule.kept_groups = 1;
    CHECK(run_router(in, where).chosen != got.chosen);
  }
}

// Logits of three values, zeros of both signs among them: nearly every place is a tie.
void ties_go_to_the_lower_slot(Where where) {
  for (const NamedRule& rule : router_rules()) {
    INFO(rule.name);
    for (const int64_t chosen : {1, 2, 4}) {
      RouterInputs in = random_router(100, 8, 40, chosen, Element::BFloat16, rule.rule);
      const double values[] = {0.0, -0.0, 0.5};
      for (Values* x : {&in.home, &in.foreign}) {
        for (double& v : *x) v = values[static_cast<int>(std::abs(v) * 7) % 3];
      }
      for (Values* x : {&in.beta, &in.bonus, &in.pool_bias, &in.correction})
        std::fill(x->begin(), x->end(), 0.0);
      std::fill(in.log_visibility.begin(), in.log_visibility.end(), 0.0);
      const RouterOutputs got = run_router(in, where);
      CHECK(got.chosen == wanted_router(in, got.z).chosen);
      std::fill(in.home.begin(), in.home.end(), 0.5);
      const RouterOutputs equal = run_router(in, where);
      for (size_t i = 0; i < equal.chosen.size(); ++i) {
        if (equal.chosen[i] != static_cast<int32_t>(i % chosen)) FAIL("tie at " << i);
      }
    }
  }
}

}  // namespace

TEST_CASE("router agrees with sorts and formulas", "[peer][kernels]") {
  check_all(kCpu);
  check_nulls(kCpu);
}

TEST_CASE("router breaks ties towards the lower slot", "[peer][kernels]") {
  ties_go_to_the_lower_slot(kCpu);
}

TEST_CASE("foreign slots join every rule", "[peer][kernels]") { foreign_slots_join(kCpu); }

TEST_CASE("no two rules are the same", "[peer][kernels]") { rules_differ(kCpu); }

TEST_CASE("router shows swapped inputs", "[peer][kernels]") { swapped_inputs_show(kCpu); }

TEST_CASE("router on CUDA", "[peer][kernels][gpu]") {
  if (!have_gpu()) return;
  check_all(kGpu);
  check_nulls(kGpu);
  ties_go_to_the_lower_slot(kGpu);
  foreign_slots_join(kGpu);
  rules_differ(kGpu);
  swapped_inputs_show(kGpu);
}
