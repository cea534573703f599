// A router with closed foreign slots gives the bits of the router without them; NaN and infinite
// logits.
#include "support/kernel_test.h"
//
#include "support/kernel_router.h"

using namespace moue;
using namespace moue::test;

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// The source's router, and the same with foreign slots that nothing may let through.
RouterInputs closed(const RouterInputs& source, int64_t slots) {
  RouterInputs in = source;
  in.slots = slots;
  const int64_t foreign = in.foreign_slots();
  in.foreign = random_values(in.tokens * foreign, 91, 1e30, in.element);
  in.beta.assign(foreign, 1e30);
  in.scale.assign(foreign, 7.0);
  in.foreign[0] = in.beta[1] = in.scale[2] = kNan;
  in.log_visibility.assign(slots, kClosedSlot);
  std::fill_n(in.log_visibility.begin(), in.home_slots, 0.0);
  in.pool_bias.resize(slots, 1e30);
  if (!in.correction.empty()) in.correction.resize(slots, kNan);
  in.balance.resize(slots, 0.0);
  in.bonus.assign(in.tokens * slots, 0.0);
  for (int64_t t = 0; t < in.tokens; ++t) {
    for (int64_t s = 0; s < slots; ++s)
      in.bonus[t * slots + s] = s >= in.home_slots ? 5.0 : source.bonus[t * source.slots + s];
  }
  return in;
}

template <class T>
std::vector<T> home_part(const std::vector<T>& x, const RouterInputs& in) {
  std::vector<T> home;
  for (size_t i = 0; i < x.size(); ++i) {
    if (static_cast<int64_t>(i) % in.slots < in.home_slots) home.push_back(x[i]);
  }
  return home;
}

bool all_zero(const auto& x, const RouterInputs& in) {
  for (size_t i = 0; i < x.size(); ++i) {
    if (static_cast<int64_t>(i) % in.slots >= in.home_slots && x[i] != 0) return false;
  }
  return true;
}

void check_closed(const RouterInputs& source, int64_t slots, Where where) {
  CAPTURE(source.tokens, source.home_slots, slots, source.chosen,
          source.element == Element::Float32);
  const RouterInputs in = closed(source, slots);
  const RouterOutputs alone = run_router(source, where), got = run_router(in, where);
  CHECK(got.chosen == alone.chosen);
  CHECK(same_bits(got.gate, alone.gate));
  CHECK(same_bits(got.weight, alone.weight));
  CHECK(same_bits(home_part(got.z, in), alone.z));
  CHECK(same_bits(home_part(got.probability, in), alone.probability));
  CHECK(home_part(got.count, in) == alone.count);
  CHECK(same_bits(home_part(got.dz, in), alone.dz));
  CHECK(same_bits(got.dhome, alone.dhome));
  CHECK(all_zero(got.probability, in));
  CHECK(all_zero(got.count, in));
  CHECK(all_zero(got.dz, in));
  CHECK(max_error(doubles(got.dbeta), Values(got.dbeta.size(), 0.0)) == 0);
  CHECK(max_error(doubles(got.dscale), Values(got.dscale.size(), 0.0)) == 0);

  RouterInputs open = in;  // one slot opened must show
  open.log_visibility[slots - 1] = 0;
  open.beta.back() = open.pool_bias.back() = 0;
  if (!open.correction.empty()) open.correction.back() = 1;
  for (int64_t t = 0; t < in.tokens; ++t) open.foreign[(t + 1) * in.foreign_slots() - 1] = 2.0;
  const RouterOutputs opened = run_router(open, where);
  CHECK_FALSE(same_bits(home_part(opened.probability, in), alone.probability));
  CHECK_FALSE(same_bits(home_part(opened.dz, in), alone.dz));
  CHECK(opened.chosen != alone.chosen);
}

void check_all(Where where) {
  for (const Element element : kElements) {
    for (const auto& [name, rule] : router_rules()) {
      INFO(name);
      check_closed(random_router(37, 5, 5, 2, element, rule), 24, where);
      check_closed(random_router(100, 8, 8, 2, element, rule), 32, where);
      check_closed(random_router(33, 40, 40, 8, element, rule), 129, where);
      check_closed(random_router(65, 129, 129, 8, element, rule), 1000, where);
      check_closed(random_router(5, 40, 40, 40, element, rule), 4096, where);
    }
  }
}

// A bonus of +0 on the home slots is no bonus.
void zero_bonus_changes_no_value(Where where) {
  RouterInputs in = random_router(33, 8, 8, 2, Element::Float32, router_rule("deepseek_v2"));
  in.home[0] = -0.0;
  std::fill(in.bonus.begin(), in.bonus.end(), 0.0);
  const RouterOutputs with = run_router(in, where);
  in.bonus.clear();
  const RouterOutputs without = run_router(in, where);
  CHECK(with.z == without.z);  // as floats: -0 + 0 is 0
  CHECK(with.chosen == without.chosen);
  CHECK(same_bits(with.gate, without.gate));
  CHECK(same_bits(with.probability, without.probability));
}

std::vector<int32_t> choice(const Values& home, int64_t chosen, Where where) {
  RouterInputs in =
      random_router(1, static_cast<int64_t>(home.size()), static_cast<int64_t>(home.size()) + 3,
                    chosen, Element::Float32, RouterRule{});
  in.home = home;
  std::fill(in.bonus.begin(), in.bonus.end(), 0.0);
  std::fill(in.pool_bias.begin(), in.pool_bias.end(), 0.0);
  std::fill(in.log_visibility.begin() + in.home_slots, in.log_visibility.end(), kClosedSlot);
  const RouterOutputs got = run_router(in, where);
  const bool bad = std::any_of(got.chosen.begin(), got.chosen.end(),
                               [&](int32_t slot) { return !std::isfinite(home[slot]); });
  CHECK(std::isnan(got.gate[0]) == (bad && !std::isfinite(home[got.chosen[0]])));
  return got.chosen;
}

// NaN comes first, as in torch.topk, and shows in the gate; -inf comes last; no slot twice.
void strange_logits(Where where) {
  using Slots = std::vector<int32_t>;
  const double inf = std::numeric_limits<double>::infinity();
  CHECK(choice({1, kNan, 3, 2}, 1, where) == Slots{1});
  CHECK(choice({1, kNan, 3, kNan}, 3, where) == Slots{1, 3, 2});
  CHECK(choice({kNan, kNan, kNan, kNan}, 2, where) == Slots{0, 1});
  CHECK(choice({1, -inf, 3, -inf}, 2, where) == Slots{2, 0});
  CHECK(choice({-inf, -inf, 3, -inf}, 3, where) == Slots{2, 0, 1});
  CHECK(choice({-inf, -inf, -inf, -inf}, 4, where) == Slots{0, 1, 2, 3});
  CHECK(choice({1, inf, 3, kNan}, 2, where) == Slots{3, 1});
  CHECK(choice({-3e38, 3e38, -1e-40, 1e-40}, 4, where) == Slots{1, 3, 2, 0});
}

}  // namespace

TEST_CASE("closed slots change no bit", "[peer][kernels]") {
  check_all(kCpu);
  zero_bonus_changes_no_value(kCpu);
}

TEST_CASE("router orders NaN and infinite logits", "[peer][kernels]") { strange_logits(kCpu); }

TEST_CASE("router does not depend on how tokens are spread", "[peer][kernels]") {
  for (const auto& [name, rule] : router_rules()) {
    INFO(name);
    for (const Element element : kElements) {
      const RouterInputs in = random_router(333, 8, 40, 4, element, rule);
      const RouterOutputs whole = run_router(in, kCpu);
      const OddPieces odd;
      const RouterOutputs pieces = run_router(in, kCpu);
      CHECK(whole.chosen == pieces.chosen);
      CHECK(same_bits(whole.z, pieces.z));
      CHECK(same_bits(whole.probability, pieces.probability));
      CHECK(same_bits(whole.dz, pieces.dz));
      CHECK(same_bits(whole.dbeta, pieces.dbeta));
      CHECK(same_bits(whole.dscale, pieces.dscale));
    }
  }
}

TEST_CASE("closed slots change no bit on CUDA", "[peer][kernels][gpu]") {
  if (!have_gpu()) return;
  check_all(kGpu);
  zero_bonus_changes_no_value(kGpu);
  strange_logits(kGpu);
  for (const auto& [name, rule] : router_rules()) {
    INFO(name);
    const RouterInputs in = random_router(1000, 64, 256, 8, Element::BFloat16, rule);
    const RouterOutputs once = run_router(in, kGpu), again = run_router(in, kGpu);
    CHECK(once.chosen == again.chosen);
    CHECK(same_bits(once.probability, again.probability));
    CHECK(same_bits(once.dz, again.dz));
    CHECK(same_bits(once.dbeta, again.dbeta));
    CHECK(same_bits(once.dscale, again.dscale));
  }
}
