// SwiGLU beside its definition in double and central differences; fast_exp and bfloat16 rounding.
#include "support/kernel_test.h"
//
#include "kernels/rows.h"
#include "kernels/swiglu.h"

using namespace moue;
using namespace moue::test;

namespace {

struct Case {
  int64_t rows, width;
};

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
  kernels::swiglu_forward({element, h.data(), weights, out.data(), c.rows, c.width}, where);
  kernels::swiglu_backward({element, h.data(), weights, dout.data(), dh.data(), again.data(),
                            weighted ? dweight.data() : nullptr, c.rows, c.width},
                           where);
  return {out.values(), dh.values(), again.values(), dweight.values()};
}

double activation(double gate, double up) { return gate * up / (1 + std::exp(-gate)); }

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

// Gates far out: silu is 0 or the gate itself, never NaN.
void extremes_are_finite(Where where) {
  const Case c{1, 8};
  const Inputs in{
      {-1000, -100, -88, -20, 20, 88, 100, 1000, 1, 1, 1, 1, 1, 1, 1, 1}, {1}, Values(8, 1.0)};
  const Outputs got = run(c, Element::Float32, in, true, where);
  CHECK(max_error(got.out, forward(c, in, true)) <= tolerance::kFloat32);
  CHECK(std::abs(got.out[0]) < 1e-30);
  CHECK(got.out[7] == 1000);
  for (const double x : got.dh) CHECK(std::isfinite(x));
}

}  // namespace

TEST_CASE("swiglu agrees with its definition", "[peer][kernels]") {
  check_all(kCpu);
  extremes_are_finite(kCpu);
}

TEST_CASE("swiglu shows gate and up swapped", "[peer][kernels]") { swapped_inputs_show(kCpu); }

TEST_CASE("swiglu does not depend on how rows are spread", "[peer][kernels]") {
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

TEST_CASE("swiglu on CUDA", "[peer][kernels][gpu]") {
  if (!have_gpu()) return;
  check_all(kGpu);
  extremes_are_finite(kGpu);
  swapped_inputs_show(kGpu);
}

TEST_CASE("fast_exp is good to 2e-7", "[peer][kernels]") {
  double worst = 0;
  for (float x = -87.0f; x <= 88.0f; x += 1.0f / 4096) {
    worst = std::max(worst, std::abs(kernels::fast_exp(x) / std::exp(static_cast<double>(x)) - 1));
  }
  CHECK(worst <= tolerance::kFastExp);
  CHECK(kernels::fast_exp(0.0f) == 1.0f);
  CHECK(kernels::fast_exp(-1000.0f) == kernels::fast_exp(-87.0f));
  CHECK(kernels::fast_exp(1000.0f) == kernels::fast_exp(88.0f));
  CHECK(std::isnan(kernels::fast_exp(std::numeric_limits<float>::quiet_NaN())));
}

TEST_CASE("bfloat16 rounds to nearest even", "[peer][kernels]") {
  for (uint32_t high = 0; high < 0x7f80; high += 7) {  // every binade, both signs
    for (const uint32_t low : {0x0u, 0x1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      const float x = std::bit_cast<float>(high << 16 | low);
      for (const float value : {x, -x}) {
        kernels::Bf16 stored;
        kernels::store(stored, value);
        if (high >= 0x80 && high < 0x7f7f)  // normal numbers that stay finite
          CHECK(kernels::load(stored) == round_to(Element::BFloat16, value));
      }
    }
  }
  kernels::Bf16 stored;
  kernels::store(stored,
                 std::bit_cast<float>(0x7f800001u));  // a NaN that truncation makes infinite
  CHECK(std::isnan(kernels::load(stored)));
}
