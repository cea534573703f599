// Cross-entropy beside its definition in double and central differences.
#include "support/kernel_test.h"
//
#include "kernels/cross_entropy.h"

using namespace moue;
using namespace moue::test;

namespace {

struct Case {
  int64_t rows, vocabulary;
};

const std::vector<Case> kCases{{1, 1},   {3, 24},   {7, 61},   {5, 127},
                               {4, 129}, {9, 1000}, {2, 4096}, {2, 50257}};

constexpr float kScale = 0.37f;

struct Inputs {
  Values logits;
  std::vector<int64_t> target;
};

Inputs inputs(const Case& c, Element element) {
  Inputs in{random_values(c.rows * c.vocabulary, 1, 8, element), {}};
  for (int64_t row = 0; row < c.rows; ++row)
    in.target.push_back(row % 3 == 2 ? -1 : (row * 7919 + 5) % c.vocabulary);
  return in;
}

struct Outputs {
  Values logits;
  std::vector<float> loss;
};

Outputs run(const Case& c, Element element, const Inputs& in, float scale, Where where) {
  Numbers logits(where, element, in.logits);
  Array<int64_t> target(where, in.target);
  Array<float> loss(where, c.rows);
  kernels::cross_entropy(
      {element, logits.data(), target.data(), loss.data(), scale, c.rows, c.vocabulary}, where);
  return {logits.values(), loss.values()};
}

double loss_of(const Values& logits, int64_t target) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const double z : logits) sum += std::exp(z - top);
  return top + std::log(sum) - logits[target];
}

Values row_of(const Case& c, const Values& logits, int64_t row) {
  const auto begin = logits.begin() + row * c.vocabulary;
  return {begin, begin + c.vocabulary};
}

// Gradients from differences of the loss where that is quick, else from exp(-loss of each token).
Values gradient(const Case& c, const Inputs& in) {
  Values all;
  for (int64_t row = 0; row < c.rows; ++row) {
    const Values z = row_of(c, in.logits, row);
    const int64_t target = in.target[row];
    Values g(z.size(), 0.0);
    if (target >= 0 && c.vocabulary <= 1000) {
      g = gradient_of([&](const Values& x) { return loss_of(x, target); }, z);
    } else if (target >= 0) {
      const double first = loss_of(z, 0);
      for (size_t i = 0; i < z.size(); ++i) g[i] = std::exp(z[i] - z[0] - first);
      g[target] -= 1;
    }
    for (const double x : g) all.push_back(kScale * x);
  }
  return all;
}

// Without the targets' entries, whose size would hide the others.
Values others(const Case& c, const Inputs& in, Values x) {
  for (int64_t row = 0; row < c.rows; ++row) {
    if (in.target[row] >= 0) x[row * c.vocabulary + in.target[row]] = 0;
  }
  return x;
}

Values losses(const Case& c, const Inputs& in) {
  Values all;
  for (int64_t row = 0; row < c.rows; ++row)
    all.push_back(in.target[row] < 0 ? 0 : loss_of(row_of(c, in.logits, row), in.target[row]));
  return all;
}

void check(const Case& c, Element element, Where where) {
  CAPTURE(c.rows, c.vocabulary, element == Element::Float32);
  const Inputs in = inputs(c, element);
  const Outputs got = run(c, element, in, kScale, where);
  const Values wanted = gradient(c, in);
  CHECK(max_error(doubles(got.loss), losses(c, in)) <= tolerance::kFloat32);
  const double bound = tolerance::of(element, tolerance::kFloat32Sum);
  CHECK(max_error(got.logits, wanted) <= bound);
  CHECK(max_error(others(c, in, got.logits), others(c, in, wanted)) <= bound);

  const Outputs only_loss = run(c, element, in, 0, where);
  CHECK(same_bits(only_loss.logits, in.logits));
  CHECK(same_bits(only_loss.loss, got.loss));
}

void check_all(Where where) {
  for (const Case& c : kCases) {
    for (const Element element : kElements) check(c, element, where);
  }
}

void swapped_inputs_show(Where where) {
  const Case c{7, 61};
  for (const Element element : kElements) {
    const Inputs in = inputs(c, element);
    Inputs shifted = in;
    for (int64_t& target : shifted.target) target = target < 0 ? -1 : (target + 1) % c.vocabulary;
    const Outputs got = run(c, element, shifted, kScale, where);
    CHECK(max_error(doubles(got.loss), losses(c, in)) > tolerance::kVisible * tolerance::kFloat32);
    CHECK(max_error(got.logits, gradient(c, in)) > tolerance::kVisible * tolerance::of(element));
  }
}

// Logits far apart, and a NaN that must not be hidden.
void extremes(Where where) {
  const Case c{3, 5};
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Inputs in{{1000, 0, -1000, 0, 0, -1e30, 3e38, 0, 0, 0, 0, nan, 0, 0, 0}, {0, 1, 0}};
  const Outputs got = run(c, Element::Float32, in, 1, where);
  CHECK(got.loss[0] == 0);
  CHECK(got.loss[1] == 0);
  CHECK(std::isnan(got.loss[2]));
  for (int i = 0; i < 10; ++i) CHECK(std::abs(got.logits[i]) < 1e-30);
  for (int i = 10; i < 15; ++i) CHECK(std::isnan(got.logits[i]));
}

}  // namespace

TEST_CASE("cross_entropy agrees with its definition", "[peer][kernels]") {
  check_all(kCpu);
  extremes(kCpu);
}

TEST_CASE("cross_entropy shows shifted targets", "[peer][kernels]") { swapped_inputs_show(kCpu); }

TEST_CASE("cross_entropy does not depend on how rows are spread", "[peer][kernels]") {
  const Case c{37, 61};
  const Inputs in = inputs(c, Element::BFloat16);
  const Outputs whole = run(c, Element::BFloat16, in, kScale, kCpu);
  const OddPieces odd;
  const Outputs pieces = run(c, Element::BFloat16, in, kScale, kCpu);
  CHECK(same_bits(whole.logits, pieces.logits));
  CHECK(same_bits(whole.loss, pieces.loss));
}

TEST_CASE("cross_entropy on CUDA", "[peer][kernels][gpu]") {
  if (!have_gpu()) return;
  check_all(kGpu);
  extremes(kGpu);
  swapped_inputs_show(kGpu);
}
