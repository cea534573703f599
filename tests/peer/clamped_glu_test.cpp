// The clamped GLU beside its definition in double and central differences.
#include "support/kernel_test.h"
//
#include "kernels/clamped_glu.h"

using namespace moue;
using namespace moue::test;

namespace {

struct Case {
  int64_t rows, width;
};

constexpr double kAlpha = 1.702, kLimit = 2.50390625;  // many numbers lie beyond it, none on it

const std::vector<Case> kCases{{1, 1},    {1, 24},   {3, 40},  {37, 127},
                               {65, 129}, {2, 1032}, {1, 2051}};

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

Outputs run(const Case& c, Element element, const Inputs& in, bool weighted, Where where) {
  Numbers h(where, element, in.h), dout(where, element, in.dout);
  Numbers out(where, element, in.dout.size()), again(where, element, in.dout.size());
  Numbers dh(where, element, in.h.size());
  Array<float> weight = floats(where, in.weight), dweight(where, c.rows);
  const float* weights = weighted ? weight.data() : nullptr;
  kernels::clamped_glu_forward(
      {element, h.data(), weights, out.data(), c.rows, c.width, kAlpha, kLimit}, where);
  kernels::clamped_glu_backward(
      {element, h.data(), weights, dout.data(), dh.data(), again.data(),
       weighted ? dweight.data() : nullptr, c.rows, c.width, kAlpha, kLimit},
      where);
  return {out.values(), dh.values(), again.values(), dweight.values()};
}

double activation(double gate, double up) {
  const double g = std::min(gate, kLimit), u = std::clamp(up, -kLimit, kLimit);
  return (u + 1) * g / (1 + std::exp(-kAlpha * g));
}

Values forward(const Case& c, const Inputs& in, bool weighted) {
  Values y(in.dout.size());
  for (size_t i = 0; i < y.size(); ++i) {
    const size_t row = i / c.width, column = i % c.width, at = row * 2 * c.width + column;
    y[i] = activation(in.h[at], in.h[at + c.width]) * (weighted ? in.weight[row] : 1.0);
  }
  return y;
}

Values dh_by_differences(const Case& c, const Inputs& in, bool weighted) {
  Values all(in.h.size());
  for (size_t i = 0; i < in.dout.size(); ++i) {
    const size_t row = i / c.width, at = row * 2 * c.width + i % c.width;
    const double scale = in.dout[i] * (weighted ? in.weight[row] : 1.0);
    const Values gradient =
        gradient_of([&](const Values& x) { return scale * activation(x[0], x[1]); },
                    {in.h[at], in.h[at + c.width]});
    all[at] = gradient[0];
    all[at + c.width] = gradient[1];
  }
  return all;
}

Values dweight(const Case& c, const Inputs& in) {
  Values sum(c.rows, 0.0);
  for (size_t i = 0; i < in.dout.size(); ++i) {
    const size_t row = i / c.width, at = row * 2 * c.width + i % c.width;
    sum[row] += in.dout[i] * activation(in.h[at], in.h[at + c.width]);
  }
  return sum;
}

void check(const Case& c, Element element, bool weighted, Where where) {
  CAPTURE(c.rows, c.width, element == Element::Float32, weighted);
  const Inputs in = inputs(c, element);
  const Outputs got = run(c, element, in, weighted, where);
  const double bound = tolerance::of(element);
  CHECK(max_error(got.out, forward(c, in, weighted)) <= bound);
  CHECK(max_error(got.out_again, forward(c, in, weighted)) <= bound);
  CHECK(max_error(got.dh, dh_by_differences(c, in, weighted)) <= bound);
  if (weighted)
    CHECK(max_error(doubles(got.dweight), dweight(c, in)) <= tolerance::kFloat32Sum);
  else
    CHECK(Array<float>::is_poison(got.dweight[0]));
}

void check_all(Where where) {
  for (const Case& c : kCases) {
    for (const Element element : kElements) {
      for (const bool weighted : {true, false}) check(c, element, weighted, where);
    }
  }
}

void swapped_inputs_show(Where where) {
  const Case c{37, 127};
  for (const Element element : kElements) {
    const Inputs in = inputs(c, element);
    Inputs swapped = in;
    for (int64_t row = 0; row < c.rows; ++row) {  // up, gate
      const auto gate = swapped.h.begin() + row * 2 * c.width;
      std::swap_ranges(gate, gate + c.width, gate + c.width);
    }
    const Outputs got = run(c, element, swapped, true, where);
    const double visible = tolerance::kVisible * tolerance::of(element);
    CHECK(max_error(got.out, forward(c, in, true)) > visible);
    CHECK(max_error(got.dh, dh_by_differences(c, in, true)) > visible);
    CHECK(max_error(doubles(got.dweight), dweight(c, in)) > visible);
  }
}

// Gates far out: 0 or the limit, never NaN; beyond the limits nothing has a gradient.
void extremes_are_finite(Where where) {
  const Case c{1, 8};
  const Inputs in{
      {-1000, -100, -88, -20, 20, 88, 100, 1000, 1, 1, 1, 1, 1, 1, 1, 1}, {1}, Values(8, 1.0)};
  const Outputs got = run(c, Element::Float32, in, true, where);
  CHECK(max_error(got.out, forward(c, in, true)) <= tolerance::kFloat32);
  CHECK(std::abs(got.out[0]) < 1e-30);
  CHECK(got.out[7] == Approx(2 * kLimit / (1 + std::exp(-kAlpha * kLimit))));
  CHECK(got.dh[7] == 0);
  for (const double x : got.dh) CHECK(std::isfinite(x));
}

}  // namespace

TEST_CASE("the clamped GLU agrees with its definition", "[peer][kernels]") {
  check_all(kCpu);
  extremes_are_finite(kCpu);
}

TEST_CASE("the clamped GLU shows gate and up swapped", "[peer][kernels]") {
  swapped_inputs_show(kCpu);
}

TEST_CASE("the clamped GLU does not depend on how rows are spread", "[peer][kernels]") {
  for (const Element element : kElements) {
    const Case c{333, 40};
    const Inputs in = inputs(c, element);
    const Outputs whole = run(c, element, in, true, kCpu);
    const OddPieces odd;
    const Outputs pieces = run(c, element, in, true, kCpu);
    CHECK(same_bits(whole.out, pieces.out));
    CHECK(same_bits(whole.dh, pieces.dh));
    CHECK(same_bits(whole.dweight, pieces.dweight));
  }
}

TEST_CASE("the clamped GLU on CUDA", "[peer][kernels][gpu]") {
  if (!have_gpu()) return;
  check_all(kGpu);
  extremes_are_finite(kGpu);
  swapped_inputs_show(kGpu);
}
