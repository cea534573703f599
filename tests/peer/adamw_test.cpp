// AdamW beside the paper's algorithm in double, and the sum of squares.
#include "support/kernel_test.h"
//
#include "kernels/adamw.h"

using namespace moue;
using namespace moue::test;

namespace {

struct Settings {
  double lr = 1e-2, beta1 = 0.9, beta2 = 0.95, eps = 1e-8, decay = 0.1, scale = 0.7;
  int64_t row_size = 0;  ///< 0: one decay for all
};

constexpr int kSteps = 20;

Values gradient_at(int64_t size, int step) { return random_values(size, 100 + step); }
Values row_decays(int64_t size, const Settings& s) {
  return s.row_size ? random_values(size / s.row_size, 7) : Values(1, s.decay);
}

Values run(int64_t size, const Settings& s, Where where) {
  Array<float> master = floats(where, random_values(size, 1));
  Array<float> m = floats(where, Values(size, 0.0)), v = floats(where, Values(size, 0.0));
  Array<float> decays = floats(where, row_decays(size, s));
  for (int step = 1; step <= kSteps; ++step) {
    Array<float> grad = floats(where, gradient_at(size, step));
    kernels::adamw({.master = master.data(),
                    .grad = grad.data(),
                    .m = m.data(),
                    .v = v.data(),
                    .size = size,
                    .lr = s.lr,
                    .beta1 = s.beta1,
                    .beta2 = s.beta2,
                    .eps = s.eps,
                    .decay = s.decay,
                    .scale = s.scale,
                    .bias1 = 1 - std::pow(s.beta1, step),
                    .bias2 = 1 - std::pow(s.beta2, step),
                    .row_decay = s.row_size ? decays.data() : nullptr,
                    .row_size = s.row_size ? s.row_size : 1},
                   where);
    CHECK(same_bits(doubles(grad.values()), gradient_at(size, step)));
  }
  CHECK(std::isfinite(m.values()[0] + v.values()[0]));
  return doubles(master.values());
}

// Algorithm 2 of arXiv 1711.05101, the decay applied first.
Values reference(int64_t size, const Settings& s) {
  Values w = random_values(size, 1), m(size, 0.0), v(size, 0.0);
  const Values decays = row_decays(size, s);
  for (int step = 1; step <= kSteps; ++step) {
    const Values gradient = gradient_at(size, step);
    for (int64_t i = 0; i < size; ++i) {
      const double g = s.scale * gradient[i];
      m[i] = s.beta1 * m[i] + (1 - s.beta1) * g;
      v[i] = s.beta2 * v[i] + (1 - s.beta2) * g * g;
      const double mhat = m[i] / (1 - std::pow(s.beta1, step));
      const double vhat = v[i] / (1 - std::pow(s.beta2, step));
      w[i] -= s.lr * decays[s.row_size ? i / s.row_size : 0] * w[i];
      w[i] -= s.lr * mhat / (std::sqrt(vhat) + s.eps);
    }
  }
  return w;
}

void check_all(Where where) {
  for (const int64_t size : {1, 24, 127, 129, 1000, (1 << 14) + 5}) {
    CAPTURE(size);
    CHECK(max_error(run(size, {}, where), reference(size, {})) <= tolerance::kFloat32);
  }
  for (const int64_t row_size : {33, 40}) {
    CAPTURE(row_size);
    const Settings s{.row_size = row_size};
    CHECK(max_error(run(7 * row_size, s, where), reference(7 * row_size, s)) <=
          tolerance::kFloat32);
  }
}

void wrong_settings_show(Where where) {
  const double visible = tolerance::kVisible * tolerance::kFloat32;
  const Values wanted = reference(129, {});
  CHECK(max_error(run(129, {.beta1 = 0.95, .beta2 = 0.9}, where), wanted) > visible);
  CHECK(max_error(run(129, {.decay = 0.0}, where), wanted) > visible);
  CHECK(max_error(run(129, {.eps = 0.1}, where), wanted) > visible);
  Settings rows{.row_size = 43};
  const Values by_row = reference(129, rows);
  rows.row_size = 3;
  CHECK(max_error(run(129, rows, where), by_row) > visible);
}

double squares(const Values& x, Where where) {
  const auto size = static_cast<int64_t>(x.size());
  Array<float> input = floats(where, x);
  Array<double> partial(where, kernels::sum_of_squares_partials(size)), result(where, 1);
  kernels::sum_of_squares(input.data(), size, partial.data(), result.data(), where);
  partial.values();
  return result.values()[0];
}

void check_squares(Where where) {
  CHECK(squares({}, where) == 0);
  for (const int64_t size : {1, 127, 1 << 14, (1 << 14) + 1, 100003}) {
    const Values x = random_values(size, 5);
    double wanted = 0;
    for (const double v : x) wanted += v * v;
    CHECK(squares(x, where) == Approx(wanted).epsilon(1e-13));
    Values one_missing = x;
    one_missing.back() = 0;
    CHECK(squares(one_missing, where) != squares(x, where));
  }
}

}  // namespace

TEST_CASE("adamw agrees with the paper", "[peer][kernels]") { check_all(kCpu); }

TEST_CASE("adamw shows wrong settings", "[peer][kernels]") { wrong_settings_show(kCpu); }

TEST_CASE("sum_of_squares is exact to double rounding", "[peer][kernels]") { check_squares(kCpu); }

TEST_CASE("adamw and sum_of_squares do not depend on how blocks are spread", "[peer][kernels]") {
  const int64_t size = 5 * (1 << 14) + 3;
  const Values x = random_values(size, 5);
  const Values whole = run(size, {}, kCpu);
  const double sum = squares(x, kCpu);
  const OddPieces odd;
  CHECK(same_bits(whole, run(size, {}, kCpu)));
  CHECK(sum == squares(x, kCpu));
}

TEST_CASE("adamw and sum_of_squares on CUDA", "[peer][kernels][gpu]") {
  if (!have_gpu()) return;
  check_all(kGpu);
  wrong_settings_show(kGpu);
  check_squares(kGpu);
  const Values x = random_values(100003, 5);
  CHECK(squares(x, kGpu) == squares(x, kGpu));
}
