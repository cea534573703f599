// RMSNorm beside whole-vector formulas in double and central differences.
#include "support/kernel_test.h"
//
#include "kernels/rms_norm.h"

using namespace moue;
using namespace moue::test;

namespace {

struct Case {
  int64_t rows, width;
  // Width 1 with a small eps has a gradient that is all cancellation.
  double eps() const { return width == 1 ? 0.1 : 1e-5; }
};

// Awkward: not multiples of a pack, a warp, a block, or kRmsNormRows; wide enough for every path.
const std::vector<Case> kCases{{1, 1},     {1, 24},   {3, 40},   {5, 127},
                               {130, 129}, {257, 40}, {2, 1025}, {3, 2048}};

struct Inputs {
  Values x, gain, dout;
};

Inputs inputs(const Case& c, Element element) {
  return {random_values(c.rows * c.width, 1, 2, element), random_values(c.width, 2, 1, element),
          random_values(c.rows * c.width, 3, 1, element)};
}

struct Outputs {
  Values out, dx;
  std::vector<float> rstd, dgain;
};

Outputs run(const Case& c, Element element, const Inputs& in, bool with_gain, Where where) {
  Numbers x(where, element, in.x), gain(where, element, in.gain), dout(where, element, in.dout);
  Numbers out(where, element, in.x.size()), dx(where, element, in.x.size());
  Array<float> rstd(where, c.rows), dgain(where, c.width);
  Array<float> partial(where, kernels::rms_norm_partials(c.rows) * c.width);
  kernels::rms_norm_forward({element, x.data(), with_gain ? gain.data() : nullptr, out.data(),
                             rstd.data(), c.rows, c.width, static_cast<float>(c.eps())},
                            where);
  kernels::rms_norm_backward(
      {element, x.data(), with_gain ? gain.data() : nullptr, dout.data(), rstd.data(), dx.data(),
       with_gain ? dgain.data() : nullptr, partial.data(), c.rows, c.width},
      where);
  partial.values();  // its guards
  return {out.values(), dx.values(), rstd.values(), dgain.values()};
}

double norm(const double* x, const Case& c) {
  double squares = 0;
  for (int64_t i = 0; i < c.width; ++i) squares += x[i] * x[i];
  return std::sqrt(squares / static_cast<double>(c.width) + c.eps());
}

Values forward(const Case& c, const Inputs& in, bool with_gain) {
  Values y(in.x.size());
  for (size_t i = 0; i < y.size(); ++i) {
    const size_t row = i / c.width, column = i % c.width;
    y[i] = in.x[i] / norm(&in.x[row * c.width], c) * (with_gain ? in.gain[column] : 1.0);
  }
  return y;
}

// The scalar whose gradient backward is, row by row: dout . y.
Values dx_by_differences(const Case& c, const Inputs& in, bool with_gain) {
  Values all;
  for (int64_t row = 0; row < c.rows; ++row) {
    const auto loss = [&](const Values& x) {
      double sum = 0;
      for (int64_t i = 0; i < c.width; ++i)
        sum += in.dout[row * c.width + i] * (with_gain ? in.gain[i] : 1.0) * x[i];
      return sum / norm(x.data(), c);
    };
    const auto begin = in.x.begin() + row * c.width;
    const Values gradient = gradient_of(loss, Values(begin, begin + c.width));
    all.insert(all.end(), gradient.begin(), gradient.end());
  }
  return all;
}

Values dgain_by_columns(const Case& c, const Inputs& in) {
  Values sum(c.width, 0.0);
  for (int64_t row = 0; row < c.rows; ++row) {
    const double n = norm(&in.x[row * c.width], c);
    for (int64_t i = 0; i < c.width; ++i)
      sum[i] += in.dout[row * c.width + i] * in.x[row * c.width + i] / n;
  }
  return sum;
}

void check(const Case& c, Element element, bool with_gain, Where where) {
  CAPTURE(c.rows, c.width, element == Element::Float32, with_gain);
  const Inputs in = inputs(c, element);
  const Outputs got = run(c, element, in, with_gain, where);
  CHECK(max_error(got.out, forward(c, in, with_gain)) <=
        tolerance::of(element, tolerance::kFloat32, tolerance::kBFloat16Twice));
  CHECK(max_error(got.dx, dx_by_differences(c, in, with_gain)) <=
        tolerance::of(element, tolerance::kFloat32Sum));
  for (int64_t row = 0; row < c.rows; ++row)
    CHECK(got.rstd[row] * norm(&in.x[row * c.width], c) == Approx(1).epsilon(tolerance::kFloat32));
  if (with_gain)
    CHECK(max_error(doubles(got.dgain), dgain_by_columns(c, in)) <= tolerance::kFloat32Sum);
  else
    CHECK(Array<float>::is_poison(got.dgain[0]));  // nothing asked, nothing written
}

void check_all(Where where) {
  for (const Case& c : kCases) {
    for (const Element element : kElements) {
      for (const bool with_gain : {true, false}) check(c, element, with_gain, where);
    }
  }
}

void swapped_inputs_show(Where where) {
  const Case c{257, 40};
  for (const Element element : kElements) {
    const Inputs in = inputs(c, element);
    Inputs swapped = in;
    std::swap(swapped.x, swapped.dout);
    std::reverse(swapped.gain.begin(), swapped.gain.end());
    const Outputs got = run(c, element, swapped, true, where);
    const double visible = tolerance::kVisible * tolerance::of(element, tolerance::kFloat32Sum,
                                                               tolerance::kBFloat16Twice);
    CHECK(max_error(got.out, forward(c, in, true)) > visible);
    CHECK(max_error(got.dx, dx_by_differences(c, in, true)) > visible);
    CHECK(max_error(doubles(got.dgain), dgain_by_columns(c, in)) > visible);
  }
}

}  // namespace

TEST_CASE("rms_norm agrees with its formula", "[peer][kernels]") { check_all(kCpu); }

TEST_CASE("rms_norm shows swapped inputs", "[peer][kernels]") { swapped_inputs_show(kCpu); }

TEST_CASE("rms_norm does not depend on how rows are spread", "[peer][kernels]") {
  for (const Element element : kElements) {
    const Case c{700, 40};
    const Inputs in = inputs(c, element);
    const Outputs whole = run(c, element, in, true, kCpu);
    const OddPieces odd;
    const Outputs pieces = run(c, element, in, true, kCpu);
    CHECK(same_bits(whole.out, pieces.out));
    CHECK(same_bits(whole.dx, pieces.dx));
    CHECK(same_bits(whole.rstd, pieces.rstd));
    CHECK(same_bits(whole.dgain, pieces.dgain));
  }
}

TEST_CASE("rms_norm on CUDA", "[peer][kernels][gpu]") {
  if (!have_gpu()) return;
  check_all(kGpu);
  swapped_inputs_show(kGpu);
  const Case c{700, 1032};
  const Inputs in = inputs(c, Element::BFloat16);
  const Outputs once = run(c, Element::BFloat16, in, true, kGpu);
  const Outputs again = run(c, Element::BFloat16, in, true, kGpu);
  CHECK(same_bits(once.out, again.out));
  CHECK(same_bits(once.dx, again.dx));
  CHECK(same_bits(once.dgain, again.dgain));
}
