// Gated linear units beside their definition in double and central differences.
#include "support/kernel_test.h"
//
#include "kernels/glu.h"

using namespace moue;
using namespace moue::test;

namespace {

struct Case {
  int64_t rows, width;
};

const std::vector<Case> kCases{{1, 1},    {1, 24},   {3, 40},  {37, 127},
                               {65, 129}, {2, 1032}, {1, 2051}};

const kernels::GluRule kSwiglu{};
// Many numbers lie beyond the limit, none on it.
const kernels::GluRule kClamped{1.702f, 2.50390625f, 1.0f};

struct Inputs {
  Values h, weight, dout;
};

Inputs inputs(const Case& c, Element element) {
  return {random_values(c.rows * 2 * c.width, 1, 6, element), random_values(c.rows, 2),
          random_values(c.rows * c.width, 3, 1, element)};
}

struct Outputs {
  Values out, dh, out_again;
  std::vector<float> dweight;
};

Outputs run(const Case& c, Element element, const Inputs& in, bool weighted,
            const kernels::GluRule& rule, Where where) {
  Numbers h(where, element, in.h), dout(where, element, in.dout);
  Numbers out(where, element, in.dout.size()), again(where, element, in.dout.size());
  Numbers dh(where, element, in.h.size());
  Array<float> weight = floats(where, in.weight), dweight(where, c.rows);
  const float* weights = weighted ? weight.data() : nullptr;
  kernels::glu_forward({element, rule, h.data(), weights, out.data(), c.rows, c.width}, where);
  kernels::glu_backward({element, rule, h.data(), weights, dout.data(), dh.data(), again.data(),
                         weighted ? dweight.data() : nullptr, c.rows, c.width},
                        where);
  return {out.values(), dh.values(), again.values(), dweight.values()};
}

double activation(double gate, double up, const kernels::GluRule& rule) {
  const double limit = rule.limit, alpha = rule.alpha;
  const double g = std::min(gate, limit), u = std::clamp(up, -limit, limit);
  return (u + rule.shift) * g / (1 + std::exp(-alpha * g));
}

Values forward(const Case& c, const Inputs& in, bool weighted, const kernels::GluRule& rule) {
  Values y(in.dout.size());
  for (size_t i = 0; i < y.size(); ++i) {
    const size_t row = i / c.width, column = i % c.width, at = row * 2 * c.width + column;
    y[i] = activation(in.h[at], in.h[at + c.width], rule) * (weighted ? in.weight[row] : 1.0);
  }
  return y;
}

Values dh_by_differences(const Case& c, const Inputs& in, bool weighted,
                         const kernels::GluRule& rule) {
  Values all(in.h.size());
  for (size_t i = 0; i < in.dout.size(); ++i) {
    const size_t row = i / c.width, at = row * 2 * c.width + i % c.width;
    const double scale = in.dout[i] * (weighted ? in.weight[row] : 1.0);
    const Values gradient =
        gradient_of([&](const Values& x) { return scale * activation(x[0], x[1], rule); },
                    {in.h[at], in.h[at + c.width]});
    all[at] = gradient[0];
    all[at + c.width] = gradient[1];
  }
  return all;
}

Values dweight(const Case& c, const Inputs& in, const kernels::GluRule& rule) {
  Values sum(c.rows, 0.0);
  for (size_t i = 0; i < in.dout.size(); ++i) {
    const size_t row = i / c.width, at = row * 2 * c.width + i % c.width;
    sum[row] += in.dout[i] * activation(in.h[at], in.h[at + c.width], rule);
  }
  return sum;
}

void check(const Case& c, Element element, bool weighted, const kernels::GluRule& rule,
           Where where) {
  CAPTURE(c.rows, c.width, element == Element::Float32, weighted, rule.alpha);
  const Inputs in = inputs(c, element);
  const Outputs got = run(c, element, in, weighted, rule, where);
  const double bound = tolerance::of(element);
  CHECK(max_error(got.out, forward(c, in, weighted, rule)) <= bound);
  CHECK(max_error(got.out_again, forward(c, in, weighted, rule)) <= bound);
  CHECK(max_error(got.dh, dh_by_differences(c, in, weighted, rule)) <= bound);
  if (weighted)
    CHECK(max_error(doubles(got.dweight), dweight(c, in, rule)) <= tolerance::kFloat32Sum);
  else
    CHECK(Array<float>::is_poison(got.dweight[0]));
}

void check_all(const kernels::GluRule& rule, Where where) {
  for (const Case& c : kCases) {
    for (const Element element : kElements) {
      for (const bool weighted : {true, false}) check(c, element, weighted, rule, where);
    }
  }
}

void swapped_inputs_show(const kernels::GluRule& rule, Where where) {
  const Case c{37, 127};
  for (const Element element : kElements) {
    const Inputs in = inputs(c, element);
    Inputs swapped = in;
    for (int64_t row = 0; row < c.rows; ++row) {  // up, gate
      const auto gate = swapped.h.begin() + row * 2 * c.width;
      std::swap_ranges(gate, gate + c.width, gate + c.width);
    }
    const Outputs got = run(c, element, swapped, true, rule, where);
    const double visible = tolerance::kVisible * tolerance::of(element);
    CHECK(max_error(got.out, forward(c, in, true, rule)) > visible);
    CHECK(max_error(got.dh, dh_by_differences(c, in, true, rule)) > visible);
    CHECK(max_error(doubles(got.dweight), dweight(c, in, rule)) > visible);
  }
}

// Gates far out: 0, the gate or the limit, never NaN; beyond the limits nothing has a gradient.
void extremes_are_finite(const kernels::GluRule& rule, Where where) {
  const Case c{1, 8};
  const Inputs in{
      {-1000, -100, -88, -20, 20, 88, 100, 1000, 1, 1, 1, 1, 1, 1, 1, 1}, {1}, Values(8, 1.0)};
  const Outputs got = run(c, Element::Float32, in, true, rule, where);
  CHECK(max_error(got.out, forward(c, in, true, rule)) <= tolerance::kFloat32);
  CHECK(std::abs(got.out[0]) < 1e-30);
  CHECK(got.out[7] == Approx(activation(1000, 1, rule)));
  CHECK((got.dh[7] == 0) == std::isfinite(rule.limit));
  for (const double x : got.dh) CHECK(std::isfinite(x));
}

void check_rule(const kernels::GluRule& rule, Where where) {
  check_all(rule, where);
  extremes_are_finite(rule, where);
  swapped_inputs_show(rule, where);
}

}  // namespace

TEST_CASE("gated linear units agree with their definition", "[peer][kernels]") {
  check_rule(kSwiglu, kCpu);
  check_rule(kClamped, kCpu);
}

TEST_CASE("gated linear units do not depend on how rows are spread", "[peer][kernels]") {
  for (const kernels::GluRule& rule : {kSwiglu, kClamped}) {
    for (const Element element : kElements) {
      const Case c{333, 40};
      const Inputs in = inputs(c, element);
      const Outputs whole = run(c, element, in, true, rule, kCpu);
      const OddPieces odd;
      const Outputs pieces = run(c, element, in, true, rule, kCpu);
      CHECK(same_bits(whole.out, pieces.out));
      CHECK(same_bits(whole.dh, pieces.dh));
      CHECK(same_bits(whole.dweight, pieces.dweight));
    }
  }
}

TEST_CASE("gated linear units on CUDA", "[peer][kernels][gpu]") {
  if (!have_gpu()) return;
  check_rule(kSwiglu, kGpu);
  check_rule(kClamped, kGpu);
}
