// The router beside a sort, softmax in double and central differences.
#include "support/kernel_test.h"
//
#include <numeric>

#include "support/kernel_router.h"

using namespace moue;
using namespace moue::test;

namespace {

struct Case {
  int64_t tokens, home, slots, chosen;
};

// Around kRouterTokens; fewer and more slots than a warp; N = S; K = 1, 8, N; a thousand slots.
const std::vector<Case> kCases{{1, 1, 1, 1},     {31, 5, 5, 2},    {33, 8, 32, 2},
                               {32, 24, 24, 8},  {3, 40, 1000, 8}, {100, 8, 40, 8},
                               {65, 64, 129, 1}, {2, 40, 127, 40}, {1, 3, 2000, 3}};

Values softmax(const Values& z) {
  const double top = *std::max_element(z.begin(), z.end());
  Values p;
  for (const double v : z) p.push_back(std::exp(v - top));
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& v : p) v /= sum;
  return p;
}

// A token's logits in double.
Values logits(const RouterInputs& in, int64_t t) {
  Values z(in.slots);
  for (int64_t s = 0; s < in.slots; ++s) {
    const int64_t f = s - in.home_slots;
    z[s] = f < 0 ? in.home[t * in.home_slots + s]
                 : in.foreign[t * in.foreign_slots() + f] + in.beta[f] + in.log_visibility[s];
    if (!in.bonus.empty()) z[s] += in.bonus[t * in.slots + s];
  }
  return z;
}

// The choice is exact: a stable sort of the kernel's own float logits and their float sums.
std::vector<int32_t> sorted_choice(const RouterInputs& in, const std::vector<float>& z, int64_t t) {
  std::vector<int32_t> open;
  std::vector<float> key(in.slots);
  for (int64_t s = 0; s < in.slots; ++s) {
    if (in.log_visibility[s] != kClosedSlot) open.push_back(static_cast<int32_t>(s));
    key[s] = z[t * in.slots + s] + static_cast<float>(in.pool_bias[s]);
  }
  std::stable_sort(open.begin(), open.end(), [&](int32_t a, int32_t b) { return key[a] > key[b]; });
  open.resize(in.chosen);
  return open;
}

Values gates(const RouterInputs& in, const Values& z, const int32_t* chosen) {
  Values picked;
  if (in.rule == RouterRule::SoftmaxAll) {
    const Values p = softmax(z);
    for (int64_t k = 0; k < in.chosen; ++k) picked.push_back(p[chosen[k]]);
    return picked;
  }
  for (int64_t k = 0; k < in.chosen; ++k) picked.push_back(z[chosen[k]]);
  return softmax(picked);
}

double scale_of(const RouterInputs& in, int32_t slot) {
  return slot < in.home_slots ? 1.0 : in.scale[slot - in.home_slots];
}

// The scalar whose gradient backward is, for one token and a fixed choice.
double loss(const RouterInputs& in, int64_t t, const Values& z, const int32_t* chosen) {
  const Values gate = gates(in, z, chosen);
  double sum = 0;
  for (int64_t k = 0; k < in.chosen; ++k) {
    if (!in.dgate.empty()) sum += in.dgate[t * in.chosen + k] * gate[k];
    if (!in.dweight.empty())
      sum += in.dweight[t * in.chosen + k] * gate[k] * scale_of(in, chosen[k]);
  }
  if (in.balance.empty()) return sum;
  const Values p = softmax(z);
  for (int64_t s = 0; s < in.slots; ++s) sum += in.balance_scale * in.balance[s] * p[s];
  return sum;
}

struct Wanted {
  Values z, gate, weight, probability, dz, dhome, dforeign, dbeta, dscale;
  std::vector<int32_t> chosen;
  std::vector<int64_t> count;
};

void add_gradient(const RouterInputs& in, int64_t t, const Values& z, const int32_t* chosen,
                  Wanted& w) {
  const Values dz = gradient_of([&](const Values& x) { return loss(in, t, x, chosen); }, z);
  for (int64_t s = 0; s < in.slots; ++s) {
    const double d = in.log_visibility[s] == kClosedSlot ? 0 : dz[s];
    w.dz.push_back(d);
    (s < in.home_slots ? w.dhome : w.dforeign).push_back(d);
    if (s >= in.home_slots) w.dbeta[s - in.home_slots] += d;
  }
}

Wanted reference(const RouterInputs& in, const std::vector<float>& z_of_kernel) {
  Wanted w;
  w.count.assign(in.slots, 0);
  w.probability.assign(in.slots, 0.0);
  w.dbeta.assign(in.foreign_slots(), 0.0);
  w.dscale.assign(in.foreign_slots(), 0.0);
  for (int64_t t = 0; t < in.tokens; ++t) {
    const Values z = logits(in, t), p = softmax(z);
    const std::vector<int32_t> chosen = sorted_choice(in, z_of_kernel, t);
    const Values gate = gates(in, z, chosen.data());
    w.z.insert(w.z.end(), z.begin(), z.end());
    w.chosen.insert(w.chosen.end(), chosen.begin(), chosen.end());
    w.gate.insert(w.gate.end(), gate.begin(), gate.end());
    for (int64_t k = 0; k < in.chosen; ++k) {
      w.weight.push_back(gate[k] * scale_of(in, chosen[k]));
      ++w.count[chosen[k]];
      if (chosen[k] >= in.home_slots && !in.dweight.empty())
        w.dscale[chosen[k] - in.home_slots] += in.dweight[t * in.chosen + k] * gate[k];
    }
    for (int64_t s = 0; s < in.slots; ++s) w.probability[s] += p[s];
    add_gradient(in, t, z, chosen.data(), w);
  }
  return w;
}

// Logits of closed slots are -inf in both, and compared as such.
double logits_error(const RouterInputs& in, const std::vector<float>& got, Values wanted) {
  Values open = doubles(got);
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (in.log_visibility[i % in.slots] != kClosedSlot) continue;
    CHECK(open[i] == kClosedSlot);
    open[i] = wanted[i] = 0;
  }
  return max_error(open, wanted);
}

void check(const RouterInputs& in, Where where) {
  CAPTURE(in.tokens, in.home_slots, in.slots, in.chosen, in.element == Element::Float32,
          in.rule == RouterRule::SoftmaxAll);
  const RouterOutputs got = run_router(in, where);
  const Wanted wanted = reference(in, got.z);
  CHECK(got.chosen == wanted.chosen);
  CHECK(got.count == wanted.count);
  CHECK(logits_error(in, got.z, wanted.z) <= tolerance::kFloat32);
  CHECK(max_error(doubles(got.gate), wanted.gate) <= tolerance::kFloat32);
  CHECK(max_error(doubles(got.weight), wanted.weight) <= tolerance::kFloat32);
  CHECK(max_error(got.probability, wanted.probability) <= tolerance::kFloat32);
  CHECK(max_error(doubles(got.dz), wanted.dz) <= tolerance::kFloat32Sum);
  const double rounding = tolerance::of(in.element, tolerance::kFloat32Sum);
  CHECK(max_error(got.dhome, wanted.dhome) <= rounding);
  CHECK(max_error(got.dforeign, wanted.dforeign) <= rounding);
  CHECK(max_error(doubles(got.dbeta), wanted.dbeta) <= tolerance::kFloat32Sum);
  CHECK(max_error(doubles(got.dscale), wanted.dscale) <= tolerance::kFloat32Sum);
  for (size_t i = 0; i < got.dz.size(); ++i) {
    if (in.log_visibility[i % in.slots] == kClosedSlot && got.dz[i] != 0) FAIL("closed: " << i);
  }
}

void check_all(Where where) {
  for (const Case& c : kCases) {
    for (const Element element : kElements) {
      for (const RouterRule rule : {RouterRule::SoftmaxChosen, RouterRule::SoftmaxAll})
        check(random_router(c.tokens, c.home, c.slots, c.chosen, element, rule), where);
    }
  }
}

// Each optional input left out by turns.
void check_nulls(Where where) {
  for (const RouterRule rule : {RouterRule::SoftmaxChosen, RouterRule::SoftmaxAll}) {
    for (Values RouterInputs::*optional : {&RouterInputs::bonus, &RouterInputs::dgate,
                                           &RouterInputs::dweight, &RouterInputs::balance}) {
      RouterInputs in = random_router(37, 5, 24, 2, Element::Float32, rule);
      (in.*optional).clear();
      check(in, where);
    }
  }
}

void swapped_inputs_show(Where where) {
  const double visible = tolerance::kVisible * tolerance::kFloat32Sum;
  for (const RouterRule rule : {RouterRule::SoftmaxChosen, RouterRule::SoftmaxAll}) {
    const RouterInputs in = random_router(33, 8, 40, 2, Element::Float32, rule);
    const Wanted wanted = reference(in, run_router(in, where).z);
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
    swapped = in;
    std::reverse(swapped.pool_bias.begin(), swapped.pool_bias.end());
    CHECK(run_router(swapped, where).chosen != wanted.chosen);
  }
}

// Logits of three values, zeros of both signs among them: nearly every place is a tie.
void ties_go_to_the_lower_slot(Where where) {
  for (const int64_t chosen : {1, 2, 8}) {
    RouterInputs in =
        random_router(100, 8, 40, chosen, Element::BFloat16, RouterRule::SoftmaxChosen);
    const double values[] = {0.0, -0.0, 0.5};
    for (Values* x : {&in.home, &in.foreign}) {
      for (double& v : *x) v = values[static_cast<int>(std::abs(v) * 7) % 3];
    }
    for (Values* x : {&in.beta, &in.bonus, &in.pool_bias}) std::fill(x->begin(), x->end(), 0.0);
    std::fill(in.log_visibility.begin(), in.log_visibility.end(), 0.0);
    const RouterOutputs got = run_router(in, where);
    CHECK(got.chosen == reference(in, got.z).chosen);
    std::fill(in.home.begin(), in.home.end(), 0.5);
    const RouterOutputs equal = run_router(in, where);
    for (size_t i = 0; i < equal.chosen.size(); ++i) {
      if (equal.chosen[i] != static_cast<int32_t>(i % chosen)) FAIL("tie at " << i);
    }
  }
}

}  // namespace

TEST_CASE("router agrees with sort and softmax", "[peer][kernels]") {
  check_all(kCpu);
  check_nulls(kCpu);
}

TEST_CASE("router breaks ties towards the lower slot", "[peer][kernels]") {
  ties_go_to_the_lower_slot(kCpu);
}

TEST_CASE("router shows swapped inputs", "[peer][kernels]") { swapped_inputs_show(kCpu); }

TEST_CASE("router on CUDA", "[peer][kernels][gpu]") {
  if (!have_gpu()) return;
  check_all(kGpu);
  check_nulls(kGpu);
  ties_go_to_the_lower_slot(kGpu);
  swapped_inputs_show(kGpu);
}
